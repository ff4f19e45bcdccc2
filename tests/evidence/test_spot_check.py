"""Drawn items asked again: alone, and among the neighbours that they had; on the smallest model there is, and on a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.errors import TamperingError, UsageError
from mlflow_quantgov.evidence.measure.archive import archive
from mlflow_quantgov.evidence.measure.lm_eval_adapter import Run, run_tasks
from mlflow_quantgov.evidence.measure.provenance import provenance as made_now
from mlflow_quantgov.evidence.measure.provenance import side
from mlflow_quantgov.evidence.measure.spot_check import Bytes, Drawing, spot_check
from mlflow_quantgov.evidence.measure.spot_check_side import Asked, ask_again
from mlflow_quantgov.evidence.measure.task_eval import evaluate
from mlflow_quantgov.evidence.measure.task_eval_pairs import pair
from mlflow_quantgov.evidence.measure.task_eval_runs import TaskRun, read_run
from mlflow_quantgov.evidence.measure.tasks import folder_digest, load_tasks
from mlflow_quantgov.evidence.predicates import SpotCheck, TaskEval, TaskResult
from mlflow_quantgov.evidence.statement import Statement, parse_statement

TEXT = "say ab and then say 1 ab and 2 ab\n" * 5
SEED = "3" * 64


def answered(model: Any, folder: Path) -> dict[str, TaskRun]:
    files = load_tasks(folder)
    raw = run_tasks(model, files, Run(), lambda _: None)
    return {
        one.name: read_run(
            one.name, raw[one.name].samples, raw[one.name].config, raw[one.name].higher_is_better, one.group_by
        )
        for one in files
    }


def evaluated(model: Any, folder: Path) -> TaskEval:
    """The same model on both sides."""
    mine = side("sha256:" + "a" * 64, model.facts(), folder / "holds.yaml")
    runs = answered(model, folder)
    tasks = tuple(pair(run, run, digest=folder_digest(folder), capability="c") for run in runs.values())
    other = mine.model_copy(update={"weights": "sha256:" + "b" * 64})
    return TaskEval.measured(provenance=made_now(), parent=mine, quantized=other, settings={}, tasks=tasks)


def few_shot(folder: Path) -> None:
    """Examples are drawn at random, item by item: which ones an item gets hangs on the items before it."""
    path = folder / "holds.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "num_fewshot: 2\nfewshot_split: test\n", encoding="utf-8")


@pytest.mark.parametrize("shots", [False, True])
def test_an_item_is_asked_again_as_it_was(bigram: Callable[..., Any], task_folder: Path, shots: bool) -> None:
    if shots:
        few_shot(task_folder)
    model = bigram(TEXT)
    evaluation = evaluated(model, task_folder)
    model.asked.clear()
    places = [("holds", 4), ("holds", 7)]
    asked = Asked("parent", task_folder / "holds.yaml", evaluation.parent, None)
    again = ask_again(model, asked, evaluation, load_tasks(task_folder), places, made_now(), {})
    recorded = {place: evaluation.tasks[0].items[place[1]] for place in places}
    for place in places:
        assert again.samples[place].prompt == recorded[place].prompt_sha256
        assert again.samples[place].output == recorded[place].parent.output
    assert again.in_batch == (frozenset(places) if shots else frozenset())
    assert len(model.asked) == (12 if shots else 2)
    assert not again.tolerance.exact and again.tolerance.share == 0.05 and "bigram" in again.tolerance.why


def test_only_the_batches_that_hold_an_item_are_asked(bigram: Callable[..., Any], task_folder: Path) -> None:
    """Each among its neighbours: batches of 4 are handed over four at once."""
    rows = "".join(f'{{"id": "item-{n}", "prompt": "say {n} ab", "want": "ab", "passage": "p"}}\n' for n in range(40))
    (task_folder / "items.jsonl").write_text(rows, encoding="utf-8")
    model = bigram(TEXT)
    files = load_tasks(task_folder)
    whole = run_tasks(model, files, Run(batch=4), lambda _: None)["holds"].samples
    model.asked.clear()
    only = frozenset({("holds", 17), ("holds", 30)})
    found = run_tasks(model, files, Run(batch=4, only=only), lambda _: None)["holds"].samples
    assert model.asked == [f"say {n} ab" for n in range(16, 32)]
    assert [one["resps"] for one in found[16:32]] == [one["resps"] for one in whole[16:32]]
    assert {one["resps"][0][0] for one in (*found[:16], *found[32:])} == {""}


# On real bytes.


@pytest.fixture
def release(skills: Path, skills_q2: Path, skills_tasks: Path, tmp_path: Path) -> tuple[TaskEval, Bytes]:
    """An honest evaluation of the two-bit model, with its parent in an archive."""
    parent, child = build_manifest(skills), build_manifest(skills_q2)
    evaluation = evaluate(
        skills, skills_q2, parent_weights=parent.weights_digest, quantized_weights=child.weights_digest,
        tasks=skills_tasks, limit=12, settings={"threads": 1},
    )  # fmt: skip
    archive(skills, parent, str(tmp_path / "archive"))
    return evaluation, Bytes(skills_q2, child.weights_digest, parent.digest, str(tmp_path / "archive"))


def changed(evaluation: TaskEval, **values: Any) -> TaskEval:
    """Another evaluation, with the summary that its records give."""
    kept = {name: getattr(evaluation, name) for name in TaskEval.model_fields if name != "summary"}
    return TaskEval.measured(**(kept | values))


def forged(evaluation: TaskEval, every: int) -> TaskEval:
    """Of every so many items, the quantized version is said to have answered as the parent."""
    tasks = tuple(
        task.model_copy(update={"items": tuple(
            item.model_copy(update={"quantized": item.parent}) if number % every == 0 else item
            for number, item in enumerate(task.items))})
        for task in evaluation.tasks
    )  # fmt: skip
    return changed(evaluation, tasks=tasks)


def opposite(task: TaskResult) -> TaskResult:
    """The quantized version is said to have scored where it did not, and the other way round."""
    items = tuple(
        one.model_copy(update={"quantized": one.quantized.model_copy(update={"score": 1.0 - one.quantized.score})})
        for one in task.items
    )
    return task.model_copy(update={"items": items})


def checked(evaluation: TaskEval, models: Bytes, tasks: Path | None, items: int = 36) -> SpotCheck:
    digest = Statement.about(models.quantized_weights, evaluation, name="m").digest
    found = spot_check(Drawing(evaluation, digest, SEED, "gate", items), models, tasks)
    read = parse_statement(Statement.about(models.quantized_weights, found, name="m").to_bytes()).content()
    assert read == found
    return found


@pytest.mark.slow
def test_an_honest_evaluation_comes_out_again(release: tuple[TaskEval, Bytes], skills_tasks: Path) -> None:
    evaluation, models = release
    found = checked(evaluation, models, skills_tasks)
    assert found.parent_tolerance and found.quantized_tolerance
    assert found.parent_tolerance.exact and found.quantized_tolerance.exact, found.quantized_tolerance.why
    stated = found.stated()
    assert (stated["outcome"], stated["items"], stated["of"], stated["differ"]) == ("pass", 36, 36, 0), stated
    assert set(stated["hidden"].values()) == {0.0} and found.store


@pytest.mark.slow
def test_a_forged_one_does_not(release: tuple[TaskEval, Bytes], skills_tasks: Path) -> None:
    evaluation, models = release
    lost = evaluation.summary["addition"]["lost"] + evaluation.summary["reversal"]["lost"]
    assert lost > 0
    stated = checked(forged(evaluation, 1), models, skills_tasks).stated()
    assert stated["outcome"] == "fail" and stated["differ"] >= lost
    # Another text is seen although the score is the same.
    first = evaluation.tasks[0]
    item = first.items[0]
    text = item.model_copy(update={"parent": item.parent.model_copy(update={"output": "what nobody said"})})
    tasks = (first.model_copy(update={"items": (text, *first.items[1:])}), *evaluation.tasks[1:])
    stated = checked(changed(evaluation, tasks=tasks), models, skills_tasks).stated()
    assert stated["outcome"] == "fail" and stated["differing"] == [
        f"{first.task}/{item.id}: parent gave another answer"
    ]


@pytest.mark.slow
def test_items_that_were_left_out_or_called_something_else_are_seen(
    release: tuple[TaskEval, Bytes], skills_tasks: Path
) -> None:
    evaluation, models = release
    first, *rest = evaluation.tasks
    for task, words in (
        (first.model_copy(update={"items": first.items[:-3]}), "give another task"),
        (
            first.model_copy(update={"items": (*first.items[:2], *first.items[3:], first.items[2])}),
            "not what was recorded",
        ),
        (first.model_copy(update={"output_type": "loglikelihood"}), "give another task"),
        (first.model_copy(update={"few_shot": 5}), "give another task"),
    ):
        stated = checked(changed(evaluation, tasks=(task, *rest)), models, skills_tasks).stated()
        assert stated["outcome"] == "fail" and words in stated["reason"], stated


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, -5, True])
def test_a_limit_that_is_none_hides_no_items(release: tuple[TaskEval, Bytes], skills_tasks: Path, limit: int) -> None:
    """Whoever forges records what they like; the task files hold more items than were recorded."""
    evaluation, models = release
    content = changed(evaluation, settings=evaluation.settings | {"limit": limit})
    stated = checked(content, models, skills_tasks, items=2).stated()
    assert stated["outcome"] == "fail" and "give another task" in stated["reason"]


@pytest.mark.slow
def test_settings_that_no_runtime_has_are_said(release: tuple[TaskEval, Bytes], skills_tasks: Path) -> None:
    evaluation, models = release
    for name in ("cache", "path", "self", "trust_remote_code"):
        content = changed(evaluation, settings=evaluation.settings | {"settings": {name: "/etc"}})
        stated = checked(content, models, skills_tasks, items=2).stated()
        assert stated["outcome"] == "inconclusive" and name in stated["reason"]


@pytest.mark.slow
def test_what_ran_otherwise_is_compared_by_its_scores(release: tuple[TaskEval, Bytes], skills_tasks: Path) -> None:
    evaluation, models = release
    for change, words in (
        ({"quantized": evaluation.quantized.model_copy(update={"version": "1"})}, "its version was 1"),
        ({"settings": evaluation.settings | {"machine": None}}, "nobody recorded the processor"),
        ({"settings": evaluation.settings | {"machine": {"processor": "other"}}}, "another processor"),
    ):
        found = checked(changed(evaluation, **change), models, skills_tasks)
        assert found.quantized_tolerance and not found.quantized_tolerance.exact
        assert words in found.quantized_tolerance.why and found.stated()["outcome"] == "pass"
        assert found.stated()["tolerated"] > 0
    # A forgery of few scores passes for rounding there, as `hidden` says; one of all does not.
    few = changed(forged(evaluation, 1), settings=evaluation.settings | {"machine": None})
    assert checked(few, models, skills_tasks).stated()["hidden"]["5%"] == 1.0
    everything = changed(evaluation, tasks=tuple(opposite(task) for task in few.tasks), settings=few.settings)
    stated = checked(everything, models, skills_tasks).stated()
    assert stated["outcome"] == "fail" and "at most" in stated["reason"]


@pytest.mark.slow
def test_what_cannot_be_told_is_inconclusive_and_what_is_wrong_an_error(
    release: tuple[TaskEval, Bytes], skills_tasks: Path, task_folder: Path
) -> None:
    evaluation, models = release
    imported = changed(evaluation, provenance=evaluation.provenance.model_copy(update={"imported": True}))
    elsewhere = changed(evaluation, quantized=evaluation.quantized.model_copy(update={"runtime": "mars"}))
    other = changed(evaluation, parent=evaluation.parent.model_copy(update={"weights": "sha256:" + "9" * 64}))
    lost = Bytes(models.quantized, models.quantized_weights, "sha256:" + "9" * 64, models.store)
    swapped = Bytes(models.quantized, "sha256:" + "9" * 64, models.parent_manifest, models.store)
    for content, where, words in (
        (imported, models, "made elsewhere"),
        (elsewhere, models, "mars"),
        (other, models, "not the one that was evaluated"),
        (evaluation, lost, "archive"),
    ):
        stated = checked(content, where, skills_tasks).stated()
        assert stated["outcome"] == "inconclusive" and words in stated["reason"] and stated["items"] == 0
    drawing = Drawing(evaluation, "sha256:" + "1" * 64, SEED, "gate", 5)
    assert "other weights" in spot_check(drawing, swapped, skills_tasks).stated()["reason"]
    with pytest.raises(UsageError, match="other files"):
        checked(evaluation, models, task_folder)
    with pytest.raises(UsageError, match="lm-eval ships none"):
        checked(evaluation, models, None)
    chunk = max(
        (one for one in Path(str(models.store)).rglob("chunks/*/*") if one.is_file()),
        key=lambda one: one.stat().st_size,
    )
    chunk.write_bytes(b"damaged")
    with pytest.raises(TamperingError):
        checked(evaluation, models, skills_tasks)

"""Pairing two sides' answers: same questions, a usable metric, honest ids, nothing silent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.cache import AnswerCache
from mlflow_quantgov.evidence.measure.lm_eval_model import generate, rolling
from mlflow_quantgov.evidence.measure.task_eval_import import from_lm_eval_samples
from mlflow_quantgov.evidence.measure.task_eval_pairs import all_equal, pair
from mlflow_quantgov.evidence.measure.task_eval_runs import TaskRun, read_run

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
CONFIG = {"output_type": "generate_until", "metric_list": [{"metric": "exact", "higher_is_better": True}]}


def row(number: int, score: Any, answer: str = "x", **changes: Any) -> dict[str, Any]:
    base = {
        "doc_id": number,
        "doc": {"id": f"i{number}", "passage": number // 2},
        "arguments": [[f"q{number}", {"until": ["\n"]}]],
        "resps": [[answer]],
        "filter": "none",
        "metrics": ["exact"],
        "exact": score,
    }
    return base | changes


def run(rows: list[dict[str, Any]], config: dict[str, Any] | None = None, group_by: str | None = None) -> TaskRun:
    return read_run("t", rows, config or CONFIG, {}, group_by)


def test_items_pair_with_their_clusters() -> None:
    left = run([row(n, 1.0) for n in range(4)], group_by="passage")
    right = run([row(n, float(n % 2), f"y{n}") for n in range(4)], group_by="passage")
    found = pair(left, right, digest=DIGEST, capability="c")
    assert [one.id for one in found.items] == ["i0", "i1", "i2", "i3"]
    assert [one.group for one in found.items] == ["0", "0", "1", "1"]
    assert [one.quantized.score for one in found.items] == [0.0, 1.0, 0.0, 1.0]
    assert not all_equal(found)
    assert all_equal(pair(left, left, digest=DIGEST, capability="c"))


def test_different_questions_are_refused() -> None:
    left = run([row(0, 1.0), row(1, 1.0)])
    other = run([row(0, 1.0), row(1, 1.0, arguments=[["<|chat|>q1", {"until": ["\n"]}]])])
    for right in (other, run([row(0, 1.0)]), run([row(1, 1.0), row(2, 1.0)])):
        with pytest.raises(EvidenceError, match="same questions"):
            pair(left, right, digest=DIGEST, capability=None)


def test_a_silent_side_is_an_error() -> None:
    loud, silent = run([row(0, 1.0)]), run([row(0, 0.0, " \n")])
    for left, right in ((loud, silent), (silent, loud)):
        with pytest.raises(EvidenceError, match="answered nothing"):
            pair(left, right, digest=DIGEST, capability=None)


def test_no_items_is_an_error() -> None:
    with pytest.raises(UsageError, match="no items"):
        pair(run([]), run([]), digest=DIGEST, capability=None)


def test_ids_fall_back_to_numbers_where_names_repeat() -> None:
    rows = [row(n, 1.0, doc={"id": "same"}) for n in range(3)]
    assert [one.id for one in pair(run(rows), run(rows), digest=DIGEST, capability=None).items] == ["0", "1", "2"]


def test_items_without_their_cluster_are_refused() -> None:
    with pytest.raises(UsageError, match="group_by"):
        run([row(0, 1.0, doc={})], group_by="passage")


def test_the_metric_is_the_first_usable_one() -> None:
    names = ["perplexity", "pairs", "gone", "acc", "acc_norm"]
    config = {"output_type": "loglikelihood", "metric_list": [{"metric": name} for name in names]}
    rows = [
        row(n, 0.0, metrics=names, perplexity=1.5, pairs=(1, 2), gone=math.nan if n else 1.0, acc=1.0, acc_norm=0.5,
            arguments=[["q", " a"]], resps=[[(-1.5, True)]])
        for n in range(2)
    ]  # fmt: skip
    both = run(rows, config)
    assert pair(both, both, digest=DIGEST, capability=None).metric == "acc"
    assert pair(both, both, digest=DIGEST, capability=None, metric="acc_norm").items[0].parent.score == 0.5
    for wanted in ("gone", "pairs", "nothing"):
        with pytest.raises(UsageError, match="no usable metric"):
            pair(both, both, digest=DIGEST, capability=None, metric=wanted)


def test_lower_is_better_is_negated() -> None:
    config = CONFIG | {"metric_list": [{"metric": "exact", "higher_is_better": False}]}
    found = pair(run([row(0, 3.0)], config), run([row(0, 5.0)], config), digest=DIGEST, capability=None)
    assert (found.items[0].parent.score, found.items[0].quantized.score) == (-3.0, -5.0)


def test_of_several_filters_the_first_answers_and_each_can_be_asked_for() -> None:
    rows = [row(0, 0.0, filter="strict"), row(0, 1.0, filter="loose")]
    both = run(rows)
    assert pair(both, both, digest=DIGEST, capability=None).items[0].parent.score == 0.0
    assert pair(both, both, digest=DIGEST, capability=None, metric="exact,loose").items[0].parent.score == 1.0


def test_a_perplexity_task_points_to_fidelity() -> None:
    both = run([row(0, 1.0, resps=[[-3.5]])], CONFIG | {"output_type": "loglikelihood_rolling"})
    with pytest.raises(UsageError, match="perplexity"):
        pair(both, both, digest=DIGEST, capability=None)


def test_answers_share_the_room_of_a_statement() -> None:
    both = run([row(0, 1.0, "z" * 50_000)])
    long = pair(both, both, digest=DIGEST, capability=None)
    short = pair(both, both, digest=DIGEST, capability=None, items_in_all=100_000)
    assert (len(long.items[0].parent.output or ""), len(short.items[0].parent.output or "")) == (20_000, 60)


@pytest.mark.parametrize("change", [{"resps": []}, {"resps": [[("x", True)]]}, {"resps": [[(math.nan, True)]]},
                                    {"doc_id": "one"}, {"resps": 3}])  # fmt: skip
def test_a_broken_row_is_one_clear_error(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="A sample of the task t does not read"):
        run([row(0, 1.0, **({"arguments": [["q", " a"]]} | change))])


def test_answers_are_kept_for_exactly_the_same_run(tmp_path: Path) -> None:
    made = run([row(n, 1.0) for n in range(5)])
    cache = AnswerCache(tmp_path, ["weights", {"threads": 2}])
    assert cache.find("t", None) is None
    cache.keep(made, None)
    assert cache.find("t", None) == made
    assert cache.find("t", 2) == made.first(2)
    assert AnswerCache(tmp_path, ["weights", {"threads": 4}]).find("t", None) is None
    assert AnswerCache(None, []).find("t", None) is None
    assert [path.suffix for path in (tmp_path / "answers").iterdir()] == [".json"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"task": 1}'])
def test_a_damaged_answer_file_is_taken_for_absent(tmp_path: Path, damage: str) -> None:
    cache = AnswerCache(tmp_path, ["weights"])
    cache.keep(run([row(0, 1.0)]), None)
    next((tmp_path / "answers").iterdir()).write_text(damage, encoding="utf-8")
    assert cache.find("t", None) is None


def test_a_run_survives_being_kept() -> None:
    made = run([row(0, 1.0), row(1, 0.0, arguments=[["q", " a"]], resps=[[("-2.5", "False")]])])
    assert TaskRun.from_dict(json.loads(json.dumps(asdict(made)))) == made
    assert made.samples[1].logprobs == [-2.5]


def test_settings_that_differ_are_never_mixed(bigram: Callable[..., Any]) -> None:
    model = bigram("abababab\n" * 20)
    long, short = {"until": [], "max_gen_toks": 6}, {"until": ["b"], "max_gen_toks": 6}
    assert generate(model, [("a", long), ("a", short), ("b", long)], 2, lambda _: None) == ["bababa", "", "ababab"]


def test_sampling_is_refused(bigram: Callable[..., Any]) -> None:
    for settings in ({"do_sample": True}, {"temperature": 0.7}):
        with pytest.raises(UsageError, match="sampling"):
            generate(bigram("ab"), [("a", settings)], 1, lambda _: None)


def test_a_long_text_is_scored_in_windows_each_token_once(bigram: Callable[..., Any]) -> None:
    model = bigram("the cat sat on the mat and the dog sat on the cat\n" * 3)
    text = "the dog sat on the mat and the cat sat on the dog and the mat sat"
    assert len(text) > 2 * model.context_length
    whole = model.score([(text[0], text[1:])])[0].logprob
    assert math.isclose(rolling(model, text), whole, rel_tol=1e-5)


def write_side(folder: Path, rows: list[dict[str, Any]], *, results: bool = True) -> Path:
    folder.mkdir()
    stamp = "2026-11-23T12-00-00.123456"
    text = "".join(json.dumps(one) + "\n" for one in rows)
    (folder / f"samples_my_task_{stamp}.jsonl").write_text(text, encoding="utf-8")
    if results:
        config = CONFIG | {"metadata": {"capability": "edge-cases", "group_by": "passage"}}
        summary = {"configs": {"my_task": config}, "lm_eval_version": "0.4.13", "config": {"model": "hf"}}
        (folder / f"results_{stamp}.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def imported(left: Path, right: Path, **changes: Any) -> Any:
    return from_lm_eval_samples(left, right, parent_weights=DIGEST, quantized_weights=OTHER, **changes)


def test_samples_made_elsewhere_are_paired_and_say_so(tmp_path: Path) -> None:
    left = write_side(tmp_path / "p", [row(n, 1.0) for n in range(4)])
    right = write_side(tmp_path / "q", [row(n, 0.0, "y") for n in range(4)])
    found = imported(left, right)
    assert found.provenance.imported
    assert found.tasks[0].capability == "edge-cases"
    assert found.tasks[0].items[3].group == "1"
    assert found.parent.runtime == "lm-eval hf" and found.parent.version == "0.4.13"
    assert found.summary["my_task"]["lost"] == 4
    found.verify_summary()


def test_samples_without_a_summary_still_pair(tmp_path: Path) -> None:
    left = write_side(tmp_path / "p", [row(0, 1.0)], results=False)
    right = write_side(tmp_path / "q", [row(0, 1.0)], results=False)
    found = imported(left, right, capabilities={"my_task": "c"})
    assert (found.tasks[0].metric, found.tasks[0].capability) == ("exact", "c")
    assert found.warnings


def test_the_newest_samples_count(tmp_path: Path) -> None:
    left = write_side(tmp_path / "p", [row(0, 1.0)])
    right = write_side(tmp_path / "q", [row(0, 1.0, "y")])
    newer = right / "samples_my_task_2026-11-24T00-00-00.000000.jsonl"
    newer.write_text(json.dumps(row(0, 0.0, "z")), encoding="utf-8")
    assert imported(left, right).tasks[0].items[0].quantized.score == 0.0


def test_samples_that_do_not_read_are_one_clear_error(tmp_path: Path) -> None:
    left = write_side(tmp_path / "p", [row(0, 1.0)])
    right = write_side(tmp_path / "q", [row(0, 1.0)])
    with pytest.raises(UsageError, match="does not exist"):
        imported(left, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no samples"):
        imported(left, tmp_path / "empty")
    (right / "samples_more_2026-11-24T00-00-00.000000.jsonl").write_text(json.dumps(row(0, 1.0)), encoding="utf-8")
    with pytest.raises(UsageError, match="more"):
        imported(left, right)
    next(left.glob("samples_*")).write_text("{\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1"):
        imported(left, left)


def test_first_cuts_and_replaces_nothing_else() -> None:
    made = run([row(n, 1.0) for n in range(3)])
    assert made.first(None) == made
    assert made.first(1) == replace(made, samples=made.samples[:1])

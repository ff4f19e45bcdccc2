"""lm-eval over our runtimes, end to end: real tasks, real models, both sides, offline and without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.errors import ArtifactError, UsageError
from mlflow_quantgov.evidence.measure.lm_eval_adapter import Run, run_tasks
from mlflow_quantgov.evidence.measure.lm_eval_model import make_model
from mlflow_quantgov.evidence.measure.task_eval import evaluate
from mlflow_quantgov.evidence.measure.task_eval_import import from_lm_eval_samples
from mlflow_quantgov.evidence.measure.tasks import folder_digest, load_tasks
from mlflow_quantgov.evidence.statement import Statement, parse_statement

pytestmark = pytest.mark.slow
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
TEXT = "say ab and then say 1 ab and 2 ab\n" * 5
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<me>{% endif %}"
)
CHOICES = """
task: choices
dataset_path: json
dataset_kwargs: {data_files: {test: items.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: [" ab", " xy"]
doc_to_target: 0
metadata: {version: 1.0}
"""


def evaluated(parent: Path, quantized: Path, tasks: Path, **changes: Any) -> Any:
    options: dict[str, Any] = {"settings": {"threads": 2}} | changes
    return evaluate(
        parent, quantized, tasks=tasks, **({"parent_weights": DIGEST, "quantized_weights": OTHER} | options)
    )


def run(model: Any, folder: Path, **changes: Any) -> Any:
    progress = changes.pop("progress", lambda _: None)
    return run_tasks(model, load_tasks(folder), Run(**({"batch": 4} | changes)), progress)


def test_tasks_run_on_any_runtime(bigram: Callable[..., Any], task_folder: Path) -> None:
    (task_folder / "choices.yaml").write_text(CHOICES, encoding="utf-8")
    model = bigram(TEXT)
    seen: list[float] = []
    found = run(model, task_folder, progress=seen.append)
    assert set(found) == {"holds", "choices"}
    assert [len(one.samples) for one in found.values()] == [10, 10]
    assert {sample["holds"] for sample in found["holds"].samples} <= {0.0, 1.0}
    assert [sample["acc"] for sample in found["choices"].samples] == [1.0] * 10
    assert found["choices"].higher_is_better["acc"]
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_a_limit_cuts_the_items(bigram: Callable[..., Any], task_folder: Path) -> None:
    assert len(run(bigram(TEXT), task_folder, limit=3)["holds"].samples) == 3


def test_only_tasks_that_generate_use_the_chat_template(bigram: Callable[..., Any], task_folder: Path) -> None:
    (task_folder / "choices.yaml").write_text(CHOICES, encoding="utf-8")
    model = bigram(TEXT, TEMPLATE)
    run(model, task_folder, limit=1)
    assert model.asked[0] == "<user>say 0 ab<me>"
    assert set(model.asked[1:]) == {"say 0 ab"}


def test_few_shot_examples_become_turns_and_a_begun_answer_follows_the_template(
    bigram: Callable[..., Any], task_folder: Path
) -> None:
    path = task_folder / "holds.yaml"
    path.write_text(
        path.read_text(encoding="utf-8")
        + "num_fewshot: 1\nfewshot_config: {sampler: first_n}\nfewshot_split: test\ngen_prefix: 'It is'\n",
        encoding="utf-8",
    )
    model = bigram(TEXT, TEMPLATE)
    run(model, task_folder, limit=2)
    assert model.asked[1].startswith("<user>say 0 ab<assistant>It is ab<user>say 1 ab<me>It is")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("process_results: !function scores.process_results", "process_results: !function scores.fails"), "KeyError"),
        (("test_split: test", "test_split: nowhere"), "nowhere"),
        (("test_split: test", "training_split: test"), "test docs"),
        (("doc_to_text: '{{prompt}}'", "doc_to_text: '{{prompt'"), "holds"),
        (("dataset_path: json", "dataset_path: nobody/no-such-set"), "holds"),
        (("do_sample: false", "do_sample: true"), "sampling"),
    ],
)
def test_a_task_that_does_not_run_is_one_clear_line(
    bigram: Callable[..., Any], task_folder: Path, change: tuple[str, str], problem: str
) -> None:
    (task_folder / "scores.py").open("a", encoding="utf-8").write("def fails(doc, results):\n    return doc['none']\n")
    for path in task_folder.glob("*.yaml"):
        path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(UsageError, match=problem) as caught:
        run(bigram(TEXT), task_folder)
    assert "\n" not in caught.value.what and caught.value.fix


def test_both_sides_of_a_real_model(
    skills: Path, skills_q2: Path, skills_q8: Path, skills_tasks: Path, tmp_path: Path
) -> None:
    broken = evaluated(skills, skills_q2, skills_tasks, limit=60, cache=tmp_path)
    assert broken.parent.twin == "lossless-twin"
    assert broken.parent.runtime == broken.quantized.runtime == "llama.cpp"
    assert {task.capability for task in broken.tasks} >= {"multi-step-reasoning", "copying"}
    assert {task.task_digest for task in broken.tasks} == {folder_digest(skills_tasks)}
    addition = broken.summary["addition"]
    assert addition["parent_mean"] > 0.9 and addition["lost"] > 5
    assert broken.settings["parent_answers"].startswith("0 of 3")
    assert parse_statement(Statement.about(OTHER, broken, name="skills").to_bytes()).content() == broken
    digest = "sha256:" + "c" * 64
    sound = evaluated(skills, skills_q8, skills_tasks, limit=60, cache=tmp_path, quantized_weights=digest)
    assert sound.settings["parent_answers"].startswith("3 of 3")
    parents = [[(item.id, item.parent) for item in one.tasks[0].items] for one in (broken, sound)]
    assert parents[0] == parents[1]
    assert sound.summary["addition"]["lost"] <= 2


def test_equal_answers_are_a_warning_and_not_an_error(skills_q8: Path, skills_tasks: Path) -> None:
    found = evaluated(skills_q8, skills_q8, skills_tasks, limit=3)
    assert any("quantization engaged" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"limit": 0}, "limit"),
        ({"capabilities": {"additon": "x"}}, "additon"),
        ({"metrics": {"additon": "x"}}, "additon"),
        ({"metrics": {"addition": "bleu"}, "limit": 1}, "bleu"),
        ({"settings": {"temperature": 1}}, "temperature"),
        ({"runtime": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_request_is_one_clear_line(
    skills_q8: Path, skills_tasks: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        evaluated(skills_q8, skills_q8, skills_tasks, **changes)


def test_a_parent_that_does_not_load_there_is_named(skills_q8: Path, skills_tasks: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="No runtime here can load"):
        evaluated(tmp_path, skills_q8, skills_tasks)


def test_lm_eval_s_own_files_are_imported(bigram: Callable[..., Any], task_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    from mlflow_quantgov.evidence.measure.tasks import load_functions

    (task_folder / "choices.yaml").write_text(CHOICES, encoding="utf-8")
    sides = {"parent": TEXT, "quantized": "say xy and 1 xy\n" * 5}
    for side, text in sides.items():
        tracker = EvaluationTracker(output_path=str(tmp_path / side))
        results = simple_evaluate(
            model=make_model(bigram(text), 4, lambda _: None), tasks=[load_functions(one) for one in load_tasks(task_folder)],
            task_manager=TaskManager(include_defaults=False), evaluation_tracker=tracker, bootstrap_iters=0,
        )  # fmt: skip
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task in samples:
            tracker.save_results_samples(task_name=task, samples=samples[task])
    found = from_lm_eval_samples(
        tmp_path / "parent", tmp_path / "quantized", parent_weights=DIGEST, quantized_weights=OTHER
    )
    assert found.provenance.imported and found.parent.runtime.startswith("lm-eval")
    assert found.summary["choices"]["parent_mean"] == 1.0 and found.summary["choices"]["quantized_mean"] == 0.0
    by_name = {task.task: task for task in found.tasks}
    assert by_name["holds"].capability == "instruction-following"
    assert by_name["holds"].items[0].group is not None and by_name["holds"].items[0].parent.output
    assert len(by_name["choices"].items[0].parent.logprobs or ()) == 2


def test_evaluating_loads_no_torch(skills_q8: Path, skills_tasks: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlflow_quantgov.evidence.measure.task_eval import evaluate\n"
        f"q = Path({str(skills_q8)!r}); d = 'sha256:' + 'a' * 64\n"
        f"r = evaluate(q, q, parent_weights=d, quantized_weights=d, tasks=Path({str(skills_tasks)!r}), limit=1)\n"
        "print(len(r.tasks), sorted({'torch', 'transformers', 'tensorflow', 'jax'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "3 []"
    assert "it/s" not in done.stderr

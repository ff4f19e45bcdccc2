"""Tasks that lm-eval ships, by name: found in its registry, with their few-shot examples, and one line where data are absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.calibration import assess
from mlflow_quantgov.evidence.measure.lm_eval_adapter import Run, check_installed, run_tasks
from mlflow_quantgov.evidence.measure.shipped_tasks import find_tasks, shipped_tasks

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<me>{% endif %}"
)


@pytest.fixture
def gsm8k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The layout of the data set `openai/gsm8k`, with rows of our own, where the process stands."""
    folder = tmp_path / "openai" / "gsm8k"
    folder.mkdir(parents=True)
    for split, count in (("train", 12), ("test", 4)):
        rows = [
            {"question": f"{split}: {n} and {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - {split: train, path: train.jsonl}\n"
        "  - {split: test, path: test.jsonl}\n---\n", encoding="utf-8"
    )  # fmt: skip
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.slow
def test_a_shipped_task_runs_with_its_examples_as_turns(gsm8k: Path, bigram: Callable[..., Any]) -> None:
    check_installed()
    (task,), digest = find_tasks(["gsm8k"])
    assert task.name == "gsm8k" and task.digest is not None and digest.startswith("sha256:")
    model = bigram("#### 2\nabababab\n" * 20, TEMPLATE)
    samples = run_tasks(model, [task], Run(batch=4), lambda _: None)["gsm8k"].samples
    assert {sample["doc_id"] for sample in samples} == {0, 1, 2, 3}
    # Five examples come before the question, each a turn of the user and one of the assistant.
    assert all(asked.count("<user>") == 6 and asked.count("<assistant>") == 5 for asked in model.asked)
    assert all("test: " in asked.rpartition("<user>")[2] for asked in model.asked)
    bare = bigram("#### 2\nabababab\n" * 20)
    run_tasks(bare, [task], Run(batch=4), lambda _: None)
    assert bare.asked[0].count("Question:") == 6 and "<user>" not in bare.asked[0]
    # The digest is over the items too.
    (gsm8k / "test.jsonl").write_text('{"question": "other", "answer": "#### 1"}\n', encoding="utf-8")
    assert find_tasks(["gsm8k"])[0][0].digest != task.digest


@pytest.mark.slow
def test_calibration_data_are_searched_for_items_of_a_shipped_task(gsm8k: Path, tmp_path: Path) -> None:
    check_installed()
    rows = [f"This is message {n}, about order {n * 7} of last week." for n in range(8)]
    (tmp_path / "calib.txt").write_text("\n\n".join([*rows, "test: 3 and 3?"]), encoding="utf-8")
    found = assess(tmp_path / "calib.txt", None, tasks=["gsm8k"], expectations=False)
    (task,), together = find_tasks(["gsm8k"])
    assert found.leaked_documents == 1
    assert (found.searched, found.searched_tasks) == ((task.digest,), together)


@pytest.mark.slow
def test_data_that_are_not_here_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    check_installed()
    with pytest.raises(UsageError, match=r"data set openai/gsm8k of the task gsm8k is not on this machine") as caught:
        find_tasks(["gsm8k"])
    assert "\n" not in caught.value.one_line() and "HF_HOME" in caught.value.fix


@pytest.mark.slow
def test_names_groups_and_tags_of_the_registry() -> None:
    check_installed()
    assert [task.name for task in shipped_tasks(["arc_easy", "gsm8k"])] == ["arc_easy", "gsm8k"]
    assert {task.name for task in shipped_tasks(["ai2_arc"])} == {"arc_easy", "arc_challenge"}
    with pytest.raises(UsageError, match="ships no task 'gsm8'") as caught:
        shipped_tasks(["gsm8"])
    assert "gsm8k" in caught.value.fix
    with pytest.raises(UsageError, match=r"more than 200 tasks|changes its members"):
        shipped_tasks(["blimp", "cmmlu", "ceval-valid", "belebele"])

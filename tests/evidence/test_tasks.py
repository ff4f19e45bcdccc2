"""Task folders: found and known by their bytes, without running their code; what is wrong is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.tasks import (
    FunctionMark,
    capability_of,
    check_names,
    folder_digest,
    load_functions,
    load_tasks,
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_task_is_read_with_what_it_includes(task_folder: Path) -> None:
    (task,) = load_tasks(task_folder)
    assert (task.name, task.capability, task.group_by) == ("holds", "instruction-following", "passage")
    assert task.config["dataset_kwargs"]["data_files"] == {"test": str(task_folder / "items.jsonl")}
    assert task.config["dataset_path"] == "json"
    assert isinstance(task.config["process_results"], FunctionMark)
    assert "include" not in task.config


def test_reading_runs_no_code(task_folder: Path) -> None:
    write(task_folder, "scores.py", "raise SystemExit('ran')")
    assert load_tasks(task_folder)


def test_functions_are_found_beside_the_yaml(task_folder: Path) -> None:
    (task,) = load_tasks(task_folder)
    assert load_functions(task)["process_results"]({"want": "x"}, ["xyz"]) == {"holds": 1.0}


@pytest.mark.parametrize(
    ("code", "problem"),
    [("1 / 0", "ZeroDivisionError"), ("x = 1", "no function process_results"), (None, "does not exist")],
)
def test_code_that_does_not_serve_is_one_line(task_folder: Path, code: str | None, problem: str) -> None:
    (task_folder / "scores.py").unlink()
    if code is not None:
        write(task_folder, "scores.py", code)
    with pytest.raises(UsageError, match=problem) as caught:
        load_functions(load_tasks(task_folder)[0])
    assert caught.value.fix


def test_capabilities_that_are_given_win(task_folder: Path) -> None:
    (task,) = load_tasks(task_folder)
    assert capability_of(task, {}) == "instruction-following"
    assert capability_of(task, {"holds": "edge-cases"}) == "edge-cases"
    with pytest.raises(UsageError, match="hold"):
        check_names([task], {"hold": "x"}, "--capability")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("holds.yaml", "task: [", "no sound YAML"),
        ("holds.yaml", "task: x\nmetadata: 3", "metadata"),
        ("holds.yaml", "task: x\nmetadata: {capability: [a]}", "capability"),
        ("holds.yaml", "task: x\ninclude: holds.yaml", "circle"),
        ("holds.yaml", "task: x\ninclude: missing.yaml", "missing.yaml"),
        ("holds.yaml", "task: ''", "empty"),
        ("holds.yaml", "task: x\ndataset_kwargs: {data_files: nowhere.jsonl}", "nowhere.jsonl"),
        ("more.yaml", "task: holds", "also in holds.yaml"),
        ("more.yaml", "group: g\ntask: [holds, {task: inline}]", "inside itself"),
    ],
)
def test_a_bad_file_is_named(task_folder: Path, name: str, text: str, problem: str) -> None:
    write(task_folder, name, text)
    with pytest.raises(UsageError, match=problem) as caught:
        load_tasks(task_folder)
    assert caught.value.fix and "\n" not in caught.value.one_line()


def test_data_without_items_are_named(task_folder: Path) -> None:
    write(task_folder, "items.jsonl", "")
    with pytest.raises(UsageError, match="no items"):
        load_tasks(task_folder)


def test_a_folder_that_does_not_exist_or_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_tasks(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no lm-eval task"):
        load_tasks(tmp_path)


def test_groups_of_names_are_left_to_their_members(task_folder: Path) -> None:
    write(task_folder, "group.yaml", "group: all\ntask: [holds]")
    assert [task.name for task in load_tasks(task_folder)] == ["holds"]


def test_the_digest_covers_configuration_code_and_data(task_folder: Path) -> None:
    before = folder_digest(task_folder)
    for name in ("holds.yaml", "scores.py", "items.jsonl"):
        path = task_folder / name
        text = path.read_text(encoding="utf-8")
        path.write_text(text + "\n", encoding="utf-8")
        assert folder_digest(task_folder) != before
        path.write_text(text, encoding="utf-8")
    assert folder_digest(task_folder) == before


@pytest.mark.slow
def test_a_data_set_that_is_a_folder_is_read_as_it_is_now(
    task_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_quantgov.evidence.measure.lm_eval_adapter import check_installed, documents

    check_installed()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (task_folder / "base.yaml").write_text("dataset_path: rows\ntest_split: test\ndoc_to_text: '{{prompt}}'\n")
    for word in ("one", "two"):
        write(task_folder, "rows/test.jsonl", f'{{"prompt": "{word}", "want": "x"}}\n')
        (task,) = load_tasks(task_folder)
        assert [one["prompt"] for one in documents(task)] == [word]


def test_the_digest_leaves_notes_and_caches_out(task_folder: Path) -> None:
    before = folder_digest(task_folder)
    write(task_folder, "README.md", "notes")
    write(task_folder, ".cache/x", "y")
    write(task_folder, "__pycache__/scores.pyc", "z")
    assert folder_digest(task_folder) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(st.text(alphabet="task:{}[]!&*?-#'\" \n\tfunction x1|>@%", max_size=60) | st.binary(max_size=60))
def test_any_yaml_is_read_or_refused(tmp_path: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / "x.yaml").write_bytes(data)
    try:
        load_tasks(tmp_path)
    except UsageError as error:
        assert error.fix

"""Plain lines of scores: paired by id, labelled as imported, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.evidence.measure.task_eval_jsonl import from_jsonl
from mlflow_quantgov.evidence.predicates import TaskEval

DIGESTS: dict[str, Any] = {"parent_weights": "sha256:" + "a" * 64, "quantized_weights": "sha256:" + "b" * 64}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def imported(parent: Path, quantized: Path, capability: str = "edge-cases") -> TaskEval:
    return from_jsonl(parent, quantized, capability=capability, **DIGESTS)


def test_lines_are_paired_by_id_in_any_order(tmp_path: Path) -> None:
    rows = [{"id": n, "score": n % 2, "group": n // 2, "output": f"a{n}"} for n in range(20)]
    left = write(tmp_path / "p", rows)
    right = write(tmp_path / "q", [*reversed([row | {"score": 0} for row in rows]), ""])
    found = imported(left, right)
    (task,) = found.tasks
    assert found.provenance.imported and (task.task, task.capability, task.metric) == (
        "edge-cases",
        "edge-cases",
        "score",
    )
    assert task.output_type == "imported"
    assert found.summary["edge-cases"]["lost"] == 10 and task.items[3].group is not None
    # The digest names the items, not their scores.
    assert task.task_digest == imported(left, left).tasks[0].task_digest
    fewer = write(tmp_path / "f", rows[:-1])
    assert task.task_digest != imported(fewer, fewer).tasks[0].task_digest


def test_item_one_of_one_task_is_not_item_one_of_another(tmp_path: Path) -> None:
    """Numbers name items within their task; a prompt that is given names them everywhere."""
    bare, full = ([{"id": n, "score": 1} | more for n in range(3)] for more in ({}, {"prompt": "p"}))
    for rows, same in ((bare, False), (full, True)):
        lines = write(tmp_path / "p", rows)
        one, other = (imported(lines, lines, name).tasks[0].items[0] for name in ("edge-cases", "reasoning"))
        assert (one.prompt_sha256 == other.prompt_sha256) is same


ROW = {"id": "a", "score": 1.0}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "empty"),
        ([""], "no items"),
        (["{"], "line 1 is not JSON"),
        (["\0\0"], "line 1 is not JSON"),
        ([[1]], "line 1 is no object"),
        ([ROW, ROW], "stands twice"),
        ([{"id": "a"}], "not a finite number"),
        ([{"id": "a", "score": "1"}], "not a finite number"),
        (['{"id": "a", "score": NaN}'], "not a finite number"),
        (['{"id": "a", "score": 1e999}'], "not a finite number"),
        ([{"score": 1}], "no id"),
        ([{"id": "", "score": 1}], "no id"),
        ([ROW | {"output": 3}], "no text"),
        ([ROW | {"scores": 3}], "unknown key 'scores'"),
        ([ROW | {"output": " "}], "answered nothing"),
        ([{"id": "b", "score": 1.0}], "not asked the same questions"),
    ],
)
def test_bad_lines_are_one_clear_line(tmp_path: Path, rows: list[Any], problem: str) -> None:
    good = write(tmp_path / "good", [ROW])
    for left, right in ((write(tmp_path / "bad", rows), good), (good, tmp_path / "bad")):
        with pytest.raises(QuantgovError, match=problem) as caught:
            imported(left, right)
        assert caught.value.fix and "\n" not in caught.value.one_line()


def test_groups_that_differ_are_refused(tmp_path: Path) -> None:
    left, right = write(tmp_path / "p", [ROW | {"group": "x"}]), write(tmp_path / "q", [ROW | {"group": "y"}])
    with pytest.raises(QuantgovError, match="another group"):
        imported(left, right)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    try:
        imported(tmp_path / "x", tmp_path / "x")
    except QuantgovError as error:
        assert "\n" not in error.one_line()

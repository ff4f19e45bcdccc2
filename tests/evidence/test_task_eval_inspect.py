"""Logs of Inspect: what it wrote is paired as it was scored, and what is no log, or a trap, is one clear line."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.errors import EvidenceError, QuantgovError, UsageError
from mlflow_quantgov.evidence.measure import import_files
from mlflow_quantgov.evidence.measure.task_eval_inspect import from_inspect_logs
from mlflow_quantgov.evidence.predicates import TaskEval

LOGS = Path(__file__).parents[1] / "data" / "inspect"
DIGESTS: dict[str, Any] = {"parent_weights": "sha256:" + "a" * 64, "quantized_weights": "sha256:" + "b" * 64}


def imported(parent: Path, quantized: Path, **names: Any) -> TaskEval:
    return from_inspect_logs(parent, quantized, **DIGESTS, **names)


def altered(tmp_path: Path, name: str = "log.json", **changes: Any) -> Path:
    """The parent's older log with something else in it."""
    path = tmp_path / name
    path.write_text(json.dumps(json.loads((LOGS / "parent.json").read_text()) | changes), encoding="utf-8")
    return path


def sample(**changes: Any) -> dict[str, Any]:
    return json.loads((LOGS / "parent.json").read_text())["samples"][0] | changes


@pytest.mark.parametrize(("left", "right"), [("eval", "eval"), ("json", "json"), ("eval", "json")])
def test_a_log_is_paired_item_by_item(left: str, right: str) -> None:
    found = imported(LOGS / f"parent.{left}", LOGS / f"quantized.{right}")
    assert found.provenance.imported and found.parent.twin == "imported" and not found.warnings
    assert found.parent.runtime == "inspect mockllm/model" and found.parent.settings == {
        "generation": {"temperature": 0.0}
    }
    (task,) = found.tasks
    assert (task.task, task.capability, task.metric) == ("sums", "multi-step-reasoning", "match")
    assert [(item.id, item.group) for item in task.items] == [(f"q{n}", f"p{n // 2}") for n in range(6)]
    assert [item.quantized.score for item in task.items] == [1, 1, 0, 1, 1, 0]
    assert (task.items[2].parent.output, task.items[2].quantized.output) == ("4", "no idea")
    assert task.task_digest == imported(LOGS / "parent.json", LOGS / "quantized.json").tasks[0].task_digest


def test_another_scorer_and_capability_are_chosen_by_name() -> None:
    found = imported(
        LOGS / "parent.eval", LOGS / "quantized.eval", metrics={"sums": "includes"}, capabilities={"sums": "x"}
    )
    assert (found.tasks[0].metric, found.tasks[0].capability) == ("includes", "x")
    with pytest.raises(UsageError, match="no finite score of 'nothing'"):
        imported(LOGS / "parent.eval", LOGS / "quantized.eval", metrics={"sums": "nothing"})


def test_choices_stay_multiple_choice() -> None:
    (task,) = imported(LOGS / "parent-picks.eval", LOGS / "quantized-picks.eval").tasks
    assert task.output_type == "multiple_choice" and {item.choices for item in task.items} == {3}


def test_epochs_of_one_sample_are_one_cluster() -> None:
    (task,) = imported(LOGS / "epochs.eval", LOGS / "epochs.eval").tasks
    assert [(item.id, item.group) for item in task.items] == [
        ("q0/1", "q0"),
        ("q0/2", "q0"),
        ("q1/1", "q1"),
        ("q1/2", "q1"),
    ]


def test_settings_that_differ_or_may_draw_are_said(tmp_path: Path) -> None:
    log = json.loads((LOGS / "parent.json").read_text())
    log["plan"]["config"] = {"temperature": 0.7}
    path = altered(tmp_path, plan=log["plan"], eval=log["eval"] | {"model_generate_config": {}})
    words = " ".join(imported(path, LOGS / "quantized.json").warnings)
    assert "different generation settings" in words and "temperature was not 0" in words


def test_samples_that_failed_on_both_sides_are_counted(tmp_path: Path) -> None:
    samples = json.loads((LOGS / "parent.json").read_text())["samples"]
    samples[1] = samples[1] | {"scores": None, "error": {"message": "out of memory"}}
    path = altered(tmp_path, samples=samples)
    found = imported(path, path)
    assert len(found.tasks[0].items) == 5 and any("1 samples ended in an error" in one for one in found.warnings)
    with pytest.raises(EvidenceError, match="not asked the same questions"):
        imported(LOGS / "parent.json", path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"status": "error"}, "did not end well"),
        ({"status": None}, "did not end well"),
        ({"samples": []}, "no samples"),
        ({"samples": "none"}, "no samples"),
        ({"samples": [{"id": 1}]}, "has a score"),
        ({"samples": [sample(scores={"match": {"value": "X"}})]}, "no finite score"),
        ({"samples": [sample(scores={"match": {"value": float("nan")}})]}, "no finite score"),
        ({"samples": [sample(scores={"match": 3})]}, "no finite score"),
        ({"samples": [sample(), sample()]}, "a sample twice"),
        ({"samples": [sample(output={"completion": " "})]}, "answered nothing"),
    ],
)
def test_a_log_that_cannot_be_used_is_one_line(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = altered(tmp_path, **changes)
    with pytest.raises(QuantgovError, match=problem) as caught:
        imported(path, path)
    assert caught.value.fix and "\n" not in caught.value.one_line()


def test_different_tasks_are_refused() -> None:
    with pytest.raises(EvidenceError, match="different tasks: sums and picks"):
        imported(LOGS / "parent.eval", LOGS / "parent-picks.eval")


def archive(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in members:
            made.writestr(name, content)
    return path


HEADER = ("header.json", b'{"status": "success", "eval": {"task": "t"}}')


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([("x.json", b"{}")], "no header.json"),
        ([("header.json", b"[")], "header.json is not JSON"),
        ([("header.json", b"[1]")], "header.json is no object"),
        ([HEADER], "no samples"),
        ([HEADER, ("samples/../../x.json", b"{}")], "outside of itself"),
        ([HEADER, ("/etc/passwd", b"{}")], "outside of itself"),
        ([HEADER, HEADER], "a member twice"),
        ([HEADER, ("samples/1_epoch_1.json", b"{}")], "has a score"),
        ([HEADER, ("samples/1_epoch_1.json", b"\xff\xfe")], "is not JSON"),
        ([HEADER, ("samples/1_epoch_1.json", b"[" * 100_000)], "is not JSON"),
        ([HEADER, ("samples/1_epoch_1.json", b" " * (65 * 1024**2))], "unpacks to more than 64 MB"),
    ],
)
def test_an_archive_that_is_no_log_or_a_trap_is_one_line(
    tmp_path: Path, members: list[tuple[str, bytes]], problem: str
) -> None:
    path = archive(tmp_path / "trap.eval", members)
    with pytest.raises(UsageError, match=problem) as caught:
        imported(path, path)
    assert "\n" not in caught.value.one_line()


@pytest.mark.slow
@pytest.mark.parametrize("stated", [10, 40_000_000])
def test_a_member_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path, stated: int) -> None:
    """Zstandard packs a gigabyte of spaces into some kilobytes, and the archive's directory says what it likes."""
    bomb = bytes(pa.Codec("zstd").compress(b" " * 1_000_000_000))
    path = archive(tmp_path / "bomb.eval", [("header.json", bomb)], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    struct.pack_into("<H", data, entry + 10, import_files.ZSTANDARD)
    struct.pack_into("<I", data, entry + 24, stated)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UsageError, match="does not unpack to the size that it states"):
        imported(path, path)
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()


def test_all_members_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_files, "MAX_FILE_BYTES", 40_000)
    with pytest.raises(UsageError, match="unpacks to more than"):
        imported(LOGS / "parent.eval", LOGS / "parent.eval")


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"PK\x03\x04 and no more", b"{", b"[]", "ü".encode("latin-1")])
def test_a_file_that_is_no_log_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.eval"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.eval") as caught:
        imported(path, path)
    assert "\n" not in caught.value.one_line()
    with pytest.raises(UsageError, match="does not exist"):
        imported(tmp_path / "nowhere.eval", path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(at=st.integers(0, 16_000), byte=st.integers(0, 255), cut=st.integers(0, 16_900))
def test_a_damaged_log_is_read_or_refused(tmp_path: Path, at: int, byte: int, cut: int) -> None:
    data = bytearray((LOGS / "parent.eval").read_bytes())
    data[at] = byte
    path = tmp_path / "damaged.eval"
    path.write_bytes(data if cut < 8_000 else data[:cut])
    try:
        imported(path, LOGS / "quantized.eval")
    except QuantgovError as error:
        assert "\n" not in error.one_line()

"""Runs that go on where they stopped, and say beforehand what they will cost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure import fidelity
from mlflow_quantgov.evidence.measure.distributions import Sums
from mlflow_quantgov.evidence.measure.fidelity_work import (
    MAX_DOCUMENTS,
    Cost,
    KeptRecords,
    Unit,
    check_number,
    score_all,
)

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def units(scored: list[str], count: int = 4, fails_at: int | None = None) -> list[Unit]:
    """Units that note when they are scored; one of them may be killed."""

    def unit(number: int) -> Unit:
        def score() -> Sums:
            if number == fails_at:
                raise KeyboardInterrupt
            scored.append(str(number))
            return Sums(10, 20.0 + number, 21.0, 0.0, 0.0, 10, 0, Counter({0: 10})) if number else Sums()

        return Unit(f"sha256:{number:064x}", 10, score)

    return [unit(number) for number in range(count)]


def cost(pending: Any) -> Cost:
    return Cost(10 * len(pending), 300.0)


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    scored: list[str] = []
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        score_all(units(scored, fails_at=2), KeptRecords(tmp_path, ["k"]), cost, lambda *_: None)
    found = score_all(units(scored), KeptRecords(tmp_path, ["k"]), cost, lambda message, _: said.append(message))
    assert said[-1] == "3 of 3 documents" and said[-2].endswith("left")
    assert scored == ["0", "1", "0", "2", "3"]  # the one with nothing to predict leaves no record
    assert found == score_all(units([]), KeptRecords(None, []), cost, lambda *_: None)
    assert "about 30 tokens on both sides, about 5 minutes, 1 of 4 documents are kept from an earlier run" in said
    again: list[str] = []
    assert score_all(units(again), KeptRecords(tmp_path, ["k"]), cost, lambda *_: None) == found and again == ["0"]


def test_other_models_or_settings_take_nothing_from_it(tmp_path: Path) -> None:
    scored: list[str] = []
    score_all(units([]), KeptRecords(tmp_path, ["k", 512]), cost, lambda *_: None)
    score_all(units(scored), KeptRecords(tmp_path, ["k", 256]), cost, lambda *_: None)
    assert scored == ["0", "1", "2", "3"]


@pytest.mark.parametrize("left", [b'{"id":"sha256:', b"\x00\xff\n", b"[]\n{}\nnull", b""])
def test_what_a_killed_run_left_half_written_is_taken_for_absent(tmp_path: Path, left: bytes) -> None:
    wanted = score_all(units([]), KeptRecords(tmp_path, ["k"]), cost, lambda *_: None)
    (kept,) = (tmp_path / "fidelity").iterdir()
    lines = kept.read_bytes().strip().split(b"\n\n")
    kept.write_bytes(lines[0] + b"\n" + left)
    scored: list[str] = []
    assert score_all(units(scored), KeptRecords(tmp_path, ["k"]), cost, lambda *_: None) == wanted
    assert scored == ["0", "2", "3"]
    assert score_all(units(scored := []), KeptRecords(tmp_path, ["k"]), cost, lambda *_: None) == wanted
    assert scored == ["0"]


def test_a_cache_that_cannot_be_written_does_not_cost_the_measurement(tmp_path: Path) -> None:
    (tmp_path / "fidelity").write_text("no folder")
    assert len(score_all(units([]), KeptRecords(tmp_path, ["k"]), cost, lambda *_: None)) == 3


def test_too_many_documents_are_refused_before_any_is_scored() -> None:
    check_number(MAX_DOCUMENTS)
    with pytest.raises(UsageError, match="20,001 documents are more"):
        check_number(MAX_DOCUMENTS + 1)


RUN = """
import sys
from pathlib import Path
from mlflow_quantgov.evidence.measure import fidelity
parent, quantized, text, cache = map(Path, sys.argv[1:])
fidelity.measure(parent, quantized, text=text, parent_weights="sha256:" + "a" * 64,
    quantized_weights="sha256:" + "b" * 64, cache=cache, settings={"threads": 1},
    progress=lambda message, fraction: print(message, flush=True))
"""


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_next_one_needs_for_the_same_statement(
    skills: Path, skills_q2: Path, skills_tasks: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join((skills_tasks / "text.jsonl").read_text().splitlines(keepends=True)[:12]))
    command = [sys.executable, "-c", RUN, str(skills), str(skills_q2), str(text), str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("3 of 12 documents"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    said: list[str] = []
    options: dict[str, Any] = {"text": text, "parent_weights": DIGEST, "quantized_weights": OTHER}
    options |= {"settings": {"threads": 1}, "progress": lambda message, _: said.append(message)}
    resumed = fidelity.measure(skills, skills_q2, cache=tmp_path / "cache", **options)
    # All of them where the process was done before the signal came.
    assert any("documents are kept from an earlier run" in one for one in said)
    whole = fidelity.measure(skills, skills_q2, cache=tmp_path / "other", **options)
    assert resumed.model_dump(exclude={"provenance"}) == whole.model_dump(exclude={"provenance"})
    assert any("tokens on both sides, about" in one for one in said)


@pytest.mark.slow
def test_a_file_that_was_converted_and_never_quantized_is_seen(
    skills: Path, skills_tasks: Path, tmp_path: Path
) -> None:
    """What somebody has who converts to GGUF, takes that for quantizing, and measures it against its parent."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin

    converted = gguf_twin(skills, tmp_path).path
    text = tmp_path / "text.jsonl"
    text.write_text("".join((skills_tasks / "text.jsonl").read_text().splitlines(keepends=True)[:5]))
    found = fidelity.measure(skills, converted, text=text, parent_weights=DIGEST, quantized_weights=OTHER)
    assert found.summary["identical_tokens"] == found.summary["tokens"] >= 1000
    assert found.summary["outcome"] == "fail" and "Quantization never engaged" in found.warnings[0]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.jsonl", b"", "it holds no documents"),
        ("blank.txt", b" \n\n \n", "it holds no documents"),
        ("binary.txt", b"\x00\xff\xfe\x80" * 40, "binary file|not UTF-8 text"),
        ("half.jsonl", b'{"text": "a"}\n{"text": "b', "line 2 is no JSON"),
        ("other.jsonl", b'{"prompt": "a"}\n', "line 1 has neither"),
        ("deep.jsonl", b"[" * 100_000, "line 1 has neither"),
    ],
)
def test_a_text_that_is_none_is_one_clear_line_before_any_model_is_loaded(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=problem) as caught:
        fidelity.measure(tmp_path, tmp_path, text=tmp_path / name, parent_weights=DIGEST, quantized_weights=OTHER)
    assert "Nothing was measured" in caught.value.one_line() and "\n" not in caught.value.one_line()


def test_a_huge_text_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(2**40)  # a hole
    with pytest.raises(UsageError, match="larger than 256 MB"):
        fidelity.measure(tmp_path, tmp_path, text=tmp_path / "huge.txt", parent_weights=DIGEST, quantized_weights=OTHER)


def test_documents_of_one_token_alone_measure_nothing(
    bigram: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Adapter:
        name = "bigram"

        def open(self, *_: Any, **__: Any) -> Any:
            return bigram("abc")

    monkeypatch.setattr(fidelity, "runtime_for", lambda *_, **__: Adapter())
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a"}))
    (tmp_path / "model.bin").write_bytes(b"0")
    options: dict[str, Any] = {"parent_weights": DIGEST, "quantized_weights": OTHER}
    with pytest.raises(Exception, match="has two tokens"):
        fidelity.measure(tmp_path / "model.bin", tmp_path / "model.bin", text=tmp_path / "a.jsonl", **options)

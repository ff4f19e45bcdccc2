"""`quantgov fidelity`: what it prints and records, with real models and real files of llama-perplexity."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.cli.fidelity_command import _beginnings

LOGITS = Path(__file__).parent.parent / "data" / "llama-perplexity"
TEXT = Path(__file__).parent.parent.parent / "src" / "mlflow_quantgov" / "demo" / "tasks" / "skills" / "text.jsonl"
URI = "models:/skills/2"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run_with_parent: Run) -> Run:
    """Runs a command beside a text of six documents, with the skills model as version 1."""
    Path("text.jsonl").write_text("".join(TEXT.read_text().splitlines(keepends=True)[:6]))
    return run_with_parent


@pytest.mark.slow
def test_a_version_is_measured_on_a_text_again_and_from_saved_logits(
    run: Run, log_quantized: Callable[[str], None], tmp_path: Path
) -> None:
    log_quantized("Q2_K")
    code, out, error = run("fidelity", URI, "--text", "text.jsonl")
    assert code == 0
    for shown in ("nats per token", "99 % of tokens", "same most likely token", "KL, nats/token", "of 6 documents"):
        assert shown in out
    assert "tokens on both sides, about" in error
    first = json.loads(Path("text.jsonl").read_text().splitlines()[0])["text"]
    assert " ".join(first.split())[:20] in out  # on this terminal only:
    code, out, error = run("fidelity", URI, "--text", "text.jsonl", "--json")
    numbers = json.loads(out)["numbers"]
    assert (code, error) == (0, "") and 0 < numbers["kl_mean"] < numbers["kl_p99"] <= numbers["kl_max"]
    assert len(numbers["worst_documents"]) == 6 and first[:20] not in out
    files = ("--parent-logits", str(LOGITS / "parent.kld"), "--quantized-logits", str(LOGITS / "q2.kld"))
    code, out, error = run("fidelity", URI, *files)
    assert code == 0 and "of 6 documents" in out and "rounded to 16 bit" in " ".join((out + error).split())
    code, out, _ = run("report", URI, "--output", "report.html")
    text = Path("report.html").read_text()
    assert "Documents furthest from the parent" in text and first[:20] not in text


def longer(source: Path, path: Path, times: int) -> Path:
    """A file of saved logits, so many times over; the first token of each chunk, which nothing rests on, tells them apart."""
    data = source.read_bytes()
    context, vocabulary, chunks = struct.unpack_from("<iii", data, 8)
    tokens = np.tile(np.frombuffer(data, "<i4", context * chunks, 20).reshape(chunks, context), (times, 1))
    tokens[:, 0] = np.repeat(np.arange(times), chunks)
    head = data[:8] + struct.pack("<iii", context, vocabulary, chunks * times)
    path.write_bytes(head + tokens.tobytes() + data[20 + 4 * context * chunks :] * times)
    return path


@pytest.mark.slow
def test_a_version_whose_quantization_never_engaged_is_named(
    run: Run, log_quantized: Callable[[str], None], tmp_path: Path
) -> None:
    """The server that was to run the quantized file ran the parent's, and both files of logits are the parent's."""
    log_quantized("Q2_K")
    file = str(longer(LOGITS / "parent.kld", tmp_path / "longer.kld", 12))
    _, out, error = run("fidelity", URI, "--parent-logits", file, "--quantized-logits", file)
    said = " ".join((out + error).split())
    assert "Quantization never engaged" in said and f"quantgov kernels {URI}" in said
    _, out, _ = run("fidelity", URI, "--parent-logits", file, "--quantized-logits", file, "--json")
    assert json.loads(out)["outcome"] == "fail"
    few = str(LOGITS / "parent.kld")
    _, out, error = run("fidelity", URI, "--parent-logits", few, "--quantized-logits", few)
    said = " ".join((out + error).split())
    assert "never engaged" not in said and "Only 90 tokens" in said


def test_what_a_text_says_to_terminals_is_not_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps({"text": "\x1b[31mred \x1b]0;title\x07\u202eback\n [/b] é"}))
    assert list(_beginnings(path).values()) == ["[31mred ]0;titleback [/b] é"]

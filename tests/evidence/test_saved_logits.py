"""llama.cpp's files of saved logits: those of the real tool, those of an independent writer, and damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr

from mlflow_quantgov.errors import EvidenceError, QuantgovError, UsageError
from mlflow_quantgov.evidence.measure import fidelity, fidelity_saved
from mlflow_quantgov.evidence.measure.saved_logits import SavedLogits

DATA = Path(__file__).parent.parent / "data" / "llama-perplexity"
"""Written by llama-perplexity (llama.cpp b11434) with `-c 32 --chunks 6 --save-all-logits`, of the skills model's BF16 file
and of its Q2_K file; `FOUND` is what `llama-perplexity --kl-divergence` printed for the two."""
FOUND = {"perplexity": 1.4278, "log_ratio": 0.03233, "kl_mean": 0.11233, "same_top_rate": 0.92222}
WEIGHTS = {"parent_weights": "sha256:" + "a" * 64, "quantized_weights": "sha256:" + "b" * 64}


def write(path: Path, tokens: np.ndarray, logits: np.ndarray) -> Path:
    """Write tokens [chunks, context] and their logits [chunks, context, vocabulary] as llama.cpp does.

    Written from the description of the layout, row by row in single precision, apart from the reader.
    """
    chunks, context = tokens.shape
    vocabulary = logits.shape[2]
    parts = [b"_logits_", struct.pack("<iii", context, vocabulary, chunks), tokens.astype("<i4").tobytes()]
    for chunk in range(chunks):
        for row in logits[chunk, context // 2 : context - 1].astype(np.float32):
            top = row.max()
            bottom = max(row.min(), top - np.float32(16))
            total = np.float32(np.log(np.exp((row - top).astype(np.float64)).sum()))
            scale = np.float32((top - bottom) / np.float32(65535))
            codes = np.zeros(vocabulary + vocabulary % 2, "<u2")
            if scale:
                codes[:vocabulary] = np.rint(np.maximum(row - bottom, 0) / scale).clip(0, 65535)
            parts += [struct.pack("<ff", scale, bottom - top - total), codes.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


def models(seed: int, chunks: int, context: int, vocabulary: int, apart: float) -> tuple[np.ndarray, ...]:
    """Tokens, and logits of two models that are so far apart."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocabulary, (chunks, context))
    parent = rng.standard_normal((chunks, context, vocabulary)) * 3
    return tokens, parent, parent + apart * rng.standard_normal(parent.shape)


def test_the_real_tools_files_give_the_numbers_that_it_prints() -> None:
    found = fidelity.measure_saved(DATA / "parent.kld", None, quantized_logits=DATA / "q2.kld", **WEIGHTS)
    summary = found.summary
    assert (summary["documents"], summary["tokens"]) == (6, 6 * 15)
    assert summary["quantized_perplexity"] == pytest.approx(FOUND["perplexity"], abs=1e-4)
    assert np.log(summary["perplexity_ratio"]) == pytest.approx(FOUND["log_ratio"], abs=2e-5)
    assert summary["kl_mean"] == pytest.approx(FOUND["kl_mean"], abs=1e-4)
    assert summary["same_top_rate"] == pytest.approx(FOUND["same_top_rate"], abs=1e-5)
    assert found.provenance.imported and found.distributions == "saved-16-bit"
    assert found.parent.behaviour is None and found.parent.twin == "imported" == found.quantized.twin
    found.verify_summary()


@pytest.mark.slow
def test_a_model_that_is_run_here_is_compared_with_what_the_real_tool_saved(
    skills: Path, skills_q2: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"cache": tmp_path, "settings": {"threads": 2}, **WEIGHTS}
    found = fidelity.measure_saved(DATA / "parent.kld", skills_q2, **options)
    assert found.summary["kl_mean"] == pytest.approx(FOUND["kl_mean"], rel=0.02)
    assert found.summary["quantized_perplexity"] == pytest.approx(FOUND["perplexity"], rel=0.01)
    assert found.quantized.runtime == "llama.cpp" and found.quantized.dequantized is False
    assert found.provenance.imported and any("engaged cannot be seen" in one for one in found.warnings)
    same = fidelity.measure_saved(DATA / "parent.kld", skills, runtime="llama.cpp", **options)
    assert same.summary["kl_mean"] < 1e-4 and same.summary["perplexity_ratio"] == pytest.approx(1, abs=0.01)
    assert same.summary["same_top_rate"] > 0.98  # for one of the 90 tokens two nearly tie: 0.02 nats lie between them


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(4, 17), st.integers(2, 40), st.floats(0, 2))
def test_numbers_are_those_of_the_logits_that_were_saved(
    tmp_path: Path, seed: int, chunks: int, context: int, vocabulary: int, apart: float
) -> None:
    tokens, parent, quantized = models(seed, chunks, context, vocabulary, apart)
    # Equal chunks count once, as equal documents do: a model says the same of them, random numbers do not.
    assume(len(np.unique(tokens, axis=0)) == chunks)
    left, right = write(tmp_path / "p", tokens, parent), write(tmp_path / "q", tokens, quantized)
    summary = fidelity.measure_saved(left, None, quantized_logits=right, **WEIGHTS).summary
    part = slice(context // 2, context - 1)
    p, q = (log_softmax(one[:, part].astype(np.float32).astype(float), axis=2) for one in (parent, quantized))
    following = tokens[:, context // 2 + 1 :, None]
    whole = rel_entr(np.exp(p), np.exp(q)).sum(axis=2).mean()
    least = p.max(axis=2, keepdims=True) - 16
    kept = p > least
    # What the file still knows: rarer tokens count as e^-16 of the most likely one, KL is over the parent's others.
    p, q = np.maximum(p, least), np.maximum(q, q.max(axis=2, keepdims=True) - 16)
    for side, logs in (("parent", p), ("quantized", q)):
        wanted = np.exp(-np.take_along_axis(logs, following, 2).mean())
        assert summary[f"{side}_perplexity"] == pytest.approx(wanted, rel=2e-4)
    p, q = (log_softmax(np.where(kept, one, -np.inf), axis=2) for one in (p, q))
    terms = np.where(kept, np.exp(p) * (np.where(kept, p, 0) - np.where(kept, q, 0)), 0)
    assert summary["kl_mean"] == pytest.approx(terms.sum(axis=2).mean(), abs=2e-4, rel=1e-3)
    assert summary["kl_mean"] <= whole * (1 + 1e-3) + 2e-4


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, parent, quantized = models(1, 2, 16, 31, 1.0)
    left, right = write(tmp_path / "p", tokens, parent), write(tmp_path / "q", tokens, quantized)
    whole = fidelity.measure_saved(left, None, quantized_logits=right, **WEIGHTS)
    monkeypatch.setattr("mlflow_quantgov.evidence.measure.distributions.BLOCK_ELEMENTS", 62)
    parts = fidelity.measure_saved(left, None, quantized_logits=right, **WEIGHTS)
    for one, other in zip(whole.documents, parts.documents, strict=True):
        assert (one.id, one.kl_counts, one.same_top) == (other.id, other.kl_counts, other.same_top)
        assert one.kl == pytest.approx(other.kl, rel=1e-12)


def test_equal_files_are_seen_to_be_equal_bit_by_bit(tmp_path: Path) -> None:
    tokens, parent, _ = models(2, 70, 32, 40, 0.0)
    file = write(tmp_path / "p", tokens, parent)
    found = fidelity.measure_saved(file, None, quantized_logits=file, **WEIGHTS)
    assert found.summary["identical_tokens"] == found.summary["tokens"] == 70 * 15
    assert found.summary["outcome"] == "fail" and "never engaged" in found.warnings[0]


def test_what_was_cut_does_not_count_as_a_distance(tmp_path: Path) -> None:
    """Equal models, one of them run here: the far tail, raised by the file to e^-16, must not look like a difference."""
    tokens, parent, _ = models(3, 1, 8, 4000, 0.0)
    parent[..., 50:] = -40.0
    saved = write(tmp_path / "p", tokens % 50, parent)
    with SavedLogits(saved) as file:
        rows = file.rows(0, slice(0, file.positions))
        assert rows.cut[:, 50:].all()
        following = np.array(file.tokens(0)[file.first + 1 :])
        live = log_softmax(parent[0, file.first : -1], axis=1)
        found = fidelity_saved.compare_saved(rows, live, following)
    assert found.kl < 1e-6 and found.same_top == 3
    assert found.parent_nll == pytest.approx(found.quantized_nll, abs=1e-3)


def test_other_tokens_are_refused(tmp_path: Path) -> None:
    tokens, parent, quantized = models(4, 2, 8, 9, 1.0)
    left = write(tmp_path / "p", tokens, parent)
    for other in (write(tmp_path / "q", (tokens + 1) % 9, quantized), write(tmp_path / "r", tokens[:1], quantized[:1])):
        with pytest.raises(UsageError, match="other tokens"):
            fidelity.measure_saved(left, None, quantized_logits=other, **WEIGHTS)


def test_another_vocabulary_and_too_long_chunks_are_refused(bigram: Callable[..., Any], tmp_path: Path) -> None:
    tokens, parent, _ = models(5, 1, 8, 9, 1.0)
    with (
        SavedLogits(write(tmp_path / "p", tokens, parent)) as file,
        pytest.raises(EvidenceError, match="have 9 tokens, the quantized model has 96"),
    ):
        fidelity_saved._Live(file, bigram("ab"))
    tokens, parent, _ = models(5, 1, 64, 96, 1.0)
    with (
        SavedLogits(write(tmp_path / "p", tokens, parent)) as file,
        pytest.raises(UsageError, match="chunks of 64 tokens, more"),
    ):
        fidelity_saved._Live(file, bigram("ab"))


def header(context: int, vocabulary: int, chunks: int) -> bytes:
    return struct.pack("<8siii", b"_logits_", context, vocabulary, chunks)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "does not begin with"),
        (b"_logits_\x01", "does not begin with"),
        (b"GGUF" + bytes(400), "does not begin with"),
        (b'{"text": "half', "does not begin with"),
        (header(0, 9, 1), "claims 1 chunks of 0 tokens"),
        (header(8, 9, -1), "claims -1 chunks"),
        (header(8, -9, 1), "a vocabulary of -9"),
        (header(2**31 - 1, 2**31 - 1, 2**31 - 1), "claims"),
        (header(512, 128_256, 2**31 - 1) + bytes(1000), "it was cut off"),
        (header(8, 9, 1) + bytes(8 * 4 + 3 * 28 + 1), "something follows"),
    ],
)
def test_hostile_and_foreign_files_are_one_clear_line(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "file.kld"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=problem) as caught:
        SavedLogits(path)
    assert "llama-perplexity" in caught.value.fix


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match=r"does not exist|is a folder"):
            SavedLogits(path)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 0.5])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_rows_that_are_no_distribution_are_refused(tmp_path: Path, scale: float) -> None:
    tokens, parent, _ = models(6, 1, 8, 9, 1.0)
    path = write(tmp_path / "p", tokens, parent)
    data = bytearray(path.read_bytes())
    data[20 + 32 : 20 + 36] = struct.pack("<f", scale)
    path.write_bytes(data)
    with pytest.raises(UsageError, match="rows of chunk 0 are no probabilities"):
        fidelity.measure_saved(path, None, quantized_logits=path, **WEIGHTS)


def test_a_token_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    tokens, parent, _ = models(7, 1, 8, 9, 1.0)
    path = write(tmp_path / "p", np.full_like(tokens, 9), parent)
    with pytest.raises(UsageError, match="outside its vocabulary"):
        fidelity.measure_saved(path, None, quantized_logits=path, **WEIGHTS)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_whatever_bytes_are_damaged_the_answer_is_a_number_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    whole = (DATA / "parent.kld").read_bytes()
    damaged = bytearray(whole[: data.draw(st.sampled_from([len(whole), 19, 20, 700, len(whole) - 1]))])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, min(len(damaged), 2000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.kld"
    path.write_bytes(damaged)
    try:
        found = fidelity.measure_saved(path, None, quantized_logits=DATA / "q2.kld", **WEIGHTS)
    except QuantgovError:
        return
    found.verify_summary()

"""KL divergence and perplexity: right by definition, whatever the block size, and never a number from NaN."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax as reference_log_softmax
from scipy.special import rel_entr

from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure import distributions, fidelity
from mlflow_quantgov.evidence.measure.distributions import Sums, compare_logits, log_softmax
from mlflow_quantgov.evidence.measure.fidelity import _windows, score
from mlflow_quantgov.evidence.predicates.fidelity import kl_bin

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
logits = arrays(np.float32, (6, 9), elements=st.floats(-50, 50, width=32))
tokens = st.lists(st.integers(0, 8), min_size=6, max_size=6)


@given(logits, logits, tokens)
def test_sums_are_those_of_the_definition(parent: Any, quantized: Any, following: list[int]) -> None:
    found = compare_logits(parent, quantized, following)
    p, q = (reference_log_softmax(one.astype(np.float64), axis=1) for one in (parent, quantized))
    kl = rel_entr(np.exp(p), np.exp(q)).sum(axis=1)
    rows = np.arange(6)
    np.testing.assert_allclose(found.parent_nll, -p[rows, following].sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.quantized_nll, -q[rows, following].sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.kl, kl.sum(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.kl_max, kl.max(), rtol=1e-6, atol=1e-9)
    assert found.kl >= 0
    assert found.kl_counts == Counter(
        kl_bin(one) for one in distributions.divergence(log_softmax(parent), log_softmax(quantized))
    )
    assert found.same_top == int((parent.argmax(axis=1) == quantized.argmax(axis=1)).sum())


@given(logits, logits, tokens, st.integers(1, 60))
def test_blocks_change_nothing(parent: Any, quantized: Any, following: list[int], elements: int) -> None:
    whole = compare_logits(parent, quantized, following)
    before = distributions.BLOCK_ELEMENTS
    distributions.BLOCK_ELEMENTS = elements
    try:
        parts = compare_logits(parent, quantized, following)
    finally:
        distributions.BLOCK_ELEMENTS = before
    assert parts.kl_counts == whole.kl_counts
    assert (parts.tokens, parts.same_top, parts.identical) == (whole.tokens, whole.same_top, whole.identical)
    np.testing.assert_allclose(
        [parts.parent_nll, parts.quantized_nll, parts.kl, parts.kl_max],
        [whole.parent_nll, whole.quantized_nll, whole.kl, whole.kl_max],
        rtol=1e-12, atol=1e-12,
    )  # fmt: skip


@given(logits, tokens)
def test_equal_sides_are_seen_to_be_bitwise_equal(parent: Any, following: list[int]) -> None:
    found = compare_logits(parent, parent.copy(), following)
    assert (found.kl, found.kl_max, found.identical, found.same_top) == (0.0, 0.0, 6, 6)


def test_huge_logits_do_not_overflow() -> None:
    rows = np.array([[3e38, 0.0, -3e38]], dtype=np.float32)
    assert log_softmax(rows)[0, 0] == 0.0
    assert compare_logits(rows, rows, [0]).parent_nll == 0.0


def test_tokens_masked_on_both_sides_add_nothing() -> None:
    rows = np.array([[1.0, 2.0, -np.inf]], dtype=np.float32)
    assert compare_logits(rows, rows, [1]).kl == 0.0


@pytest.mark.parametrize(
    ("parent", "quantized", "side"),
    [
        ([1.0, np.nan], [1.0, 2.0], "parent"),
        ([1.0, 2.0], [1.0, np.nan], "quantized"),
        ([1.0, 2.0], [np.inf, 2.0], "quantized"),
        ([1.0, 2.0], [-np.inf, 2.0], "quantized"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_is_no_number(parent: list[float], quantized: list[float], side: str) -> None:
    with pytest.raises(EvidenceError, match=side):
        compare_logits(np.array([parent], dtype=np.float32), np.array([quantized], dtype=np.float32), [1])


@given(st.lists(st.integers(0, 99), max_size=60), st.integers(1, 20))
def test_every_token_but_the_first_is_predicted_once(text: list[int], window: int) -> None:
    parts = list(_windows(text, window))
    assert [token for part in parts for token in part[1:]] == text[1:]
    assert all(2 <= len(part) <= window + 1 for part in parts)


def test_a_long_document_is_scored_whole(bigram: Callable[..., Any]) -> None:
    parent, other = bigram("the cat sat on the mat\n" * 9), bigram("a dog lay on a rug, the cat sat\n" * 9)
    text = "the cat and the dog sat on the rug and on the mat all day long"
    record = score(parent, other, text, parent.context_length)
    assert record.tokens == len(text) - 1 > parent.context_length
    assert record.parent_nll == pytest.approx(-parent.score([(text[0], text[1:])])[0].logprob, rel=1e-5)
    assert record.kl > 0 and record.identical < record.tokens
    same = score(parent, parent, text, 32)
    assert same.identical == same.tokens


def test_a_document_of_one_token_is_left_out(bigram: Callable[..., Any]) -> None:
    model = bigram("ab")
    assert score(model, model, "a", 32) == Sums()


def test_another_tokenizer_is_refused(bigram: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    parent, other = bigram("ab"), bigram("ab")
    monkeypatch.setattr(other, "tokenize", lambda text, add_special=False: [0, *parent.tokenize(text)])
    with pytest.raises(EvidenceError, match="different tokens"):
        score(parent, other, "abab", 32)


def test_sums_add_up() -> None:
    one, two = Sums(1, 2.0, 3.0, 0.5, 0.5, 1, 0), Sums(2, 1.0, 1.0, 0.25, 0.75, 0, 2)
    assert one + two == Sums(3, 3.0, 4.0, 0.75, 0.75, 1, 2)


@pytest.mark.slow
def test_a_real_quantized_model_against_its_parent(
    skills: Path, skills_q2: Path, write_jsonl: Callable[..., Path], tmp_path: Path
) -> None:
    text = write_jsonl(
        "text.jsonl", ["The singer carried a candle for the gardener.", "Nobody in the mill had seen it."]
    )
    options: dict[str, Any] = {"text": text, "cache": tmp_path, "settings": {"threads": 2}}
    seen: list[float] = []
    found = fidelity.measure(
        skills, skills_q2, parent_weights=DIGEST, quantized_weights=OTHER,
        progress=lambda _, fraction: seen.append(fraction), **options,
    )  # fmt: skip
    found.verify_summary()
    assert found.parent.twin == "lossless-twin" and found.parent.runtime == found.quantized.runtime
    assert found.summary["kl_mean"] > 0 and found.summary["quantized_perplexity"] > found.summary["parent_perplexity"]
    assert found.summary["identical_tokens"] == 0
    assert seen == sorted(seen) and seen[-1] == 1.0
    equal = fidelity.measure(skills_q2, skills_q2, parent_weights=DIGEST, quantized_weights=OTHER, **options)
    assert equal.summary["identical_tokens"] == equal.summary["tokens"]
    assert equal.summary["kl_max"] == 0.0


def test_a_missing_text_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        fidelity.measure(
            tmp_path, tmp_path, text=tmp_path / "nowhere.jsonl", parent_weights=DIGEST, quantized_weights=OTHER
        )

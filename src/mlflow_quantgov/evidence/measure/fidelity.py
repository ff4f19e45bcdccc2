"""KL divergence, same-top-token rate and perplexity of both sides on the same text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.measure.distributions import Sums, compare_logits
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.fidelity_saved import measure_saved
from mlflow_quantgov.evidence.measure.fidelity_served import measure_served
from mlflow_quantgov.evidence.measure.fidelity_work import (
    Cost,
    KeptRecords,
    Progress,
    Unit,
    check_number,
    identity,
    no_records,
    score_all,
    warnings_of,
)
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance, side
from mlflow_quantgov.evidence.predicates.fidelity import Fidelity
from mlflow_quantgov.evidence.statement import sha256_digest

__all__ = ["measure", "measure_saved", "measure_served"]

WINDOW = 512
"""Tokens that are scored together: the context that both sides see."""
LOGIT_BYTES = 256 * 1024 * 1024
"""Most bytes of one side's logits; a large vocabulary gets a smaller window."""
SMALLEST_WINDOW = 32
_TRIED_DOCUMENTS, _TRIED_CHARACTERS = 20, 2000


def measure(
    parent: Path,
    quantized: Path,
    *,
    text: Path,
    parent_weights: str,
    quantized_weights: str,
    runtime: str | None = None,
    settings: dict[str, Any] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Fidelity:
    """Score documents with both sides in the same runtime, window by window.

    A run that was killed goes on after its last whole document, where both models, the runtime with its version and
    settings, and the window are the same.

    Args:
        parent: Full-precision folder or file.
        quantized: Quantized folder or file.
        text: JSONL with `text` (or `messages`), or plain text with a document per paragraph.
        parent_weights: Weights digest of the parent.
        quantized_weights: Weights digest of the quantized model.
        runtime: Runtime for both sides; None for the first that loads the quantized one.
        settings: Settings of the runtime (`threads`), equal on both sides.
        cache: Folder for converted twins, and for the records of documents that were scored.
        progress: Called with a message and a fraction from 0 to 1; the first messages say what it will cost.

    Raises:
        UsageError: The file does not exist, holds no documents, or too many.
        EvidenceError: The sides do not share a tokenizer, a side gives NaN, or no document has two tokens.
        ArtifactError: A side does not load.
    """
    report = progress or (lambda message, fraction: None)
    documents = list(dict.fromkeys(read_documents(text)))
    check_number(len(documents))
    twins = cache / "twins" if cache else None
    right_adapter = runtime_for(quantized, preferred=runtime)
    left_adapter = runtime_for(parent, preferred=right_adapter.name)
    report("loading both models", 0.0)
    with (
        left_adapter.open(parent, cache=twins, **(settings or {})) as left,
        right_adapter.open(quantized, cache=twins, **(settings or {})) as right,
    ):
        window = _window(left, right)
        left_facts, right_facts = left.facts(), right.facts()
        left_side, right_side = (
            side(parent_weights, left_facts, parent),
            side(quantized_weights, right_facts, quantized),
        )
        kept = KeptRecords(
            cache, ["text", window, *identity(left_side, left_facts), *identity(right_side, right_facts)]
        )
        texts = {sha256_digest(one.encode()): one for one in documents}

        def unit(name: str, document: str) -> Unit:
            return Unit(name, len(document), lambda: score(left, right, document, window))

        records = score_all(
            [unit(name, document) for name, document in texts.items()],
            kept,
            lambda pending: _cost(left, right, [texts[one.id] for one in pending], window),
            report,
        )
    if not records:
        raise no_records(text.name)
    report("done", 1.0)
    return Fidelity.measured(
        provenance=provenance(*RUNTIME_LIBRARIES, "numpy"),
        parent=left_side,
        quantized=right_side,
        data=file_digest(text),
        settings={"window": window, **(settings or {})},
        documents=tuple(records),
        warnings=warnings_of(records),
    )


def score(parent: Runtime, quantized: Runtime, text: str, window: int) -> Sums:
    """Compare both sides on one document: every token but the first is predicted once.

    Raises:
        EvidenceError: The sides split it into different tokens, or a side gives NaN.
    """
    tokens = parent.tokenize(text, add_special=True)
    if tokens != quantized.tokenize(text, add_special=True):
        raise EvidenceError(
            "The two sides split the same text into different tokens.",
            why="Their next-token distributions cannot be compared, and a changed tokenizer changes every answer.",
            fix="quantize again with the parent's own tokenizer files",
        )
    total = Sums()
    for part in _windows(tokens, window):
        total += compare_logits(parent.logits(part[:-1]), quantized.logits(part[:-1]), part[1:])
    return total


def _cost(parent: Runtime, quantized: Runtime, texts: Sequence[str], window: int) -> Cost:
    """Tokens by the first documents' tokens per character, and time by one window of the first."""
    tried = [one[:_TRIED_CHARACTERS] for one in texts[:_TRIED_DOCUMENTS]]
    tokens = [parent.tokenize(one, add_special=True) for one in tried]
    ratio = sum(len(one) for one in tokens) / max(1, sum(len(one) for one in tried))
    whole = round(ratio * sum(len(one) for one in texts))
    part = max(tokens, key=len)[: window + 1]
    if len(part) < 2:
        return Cost(whole, 0.0)
    compare_logits(parent.logits(part[:1]), quantized.logits(part[:1]), part[1:2])  # warm-up
    begun = time.perf_counter()
    compare_logits(parent.logits(part[:-1]), quantized.logits(part[:-1]), part[1:])
    return Cost(whole, (time.perf_counter() - begun) / (len(part) - 1) * whole)


def _window(parent: Runtime, quantized: Runtime) -> int:
    """Tokens per window, so that one side's logits stay within `LOGIT_BYTES`."""
    if parent.vocabulary_size != quantized.vocabulary_size:
        raise EvidenceError(
            f"The sides have vocabularies of {parent.vocabulary_size} and {quantized.vocabulary_size} tokens.",
            why="Their next-token distributions cannot be compared.",
            fix="name the version that it was quantized from as its parent",
        )
    affordable = max(SMALLEST_WINDOW, LOGIT_BYTES // (4 * parent.vocabulary_size))
    return min(WINDOW, affordable, parent.context_length, quantized.context_length)


def _windows(tokens: list[int], window: int) -> Iterator[list[int]]:
    """Windows that overlap by one token, so that every token but the first is predicted exactly once."""
    for start in range(0, len(tokens) - 1, window):
        yield tokens[start : start + window + 1]

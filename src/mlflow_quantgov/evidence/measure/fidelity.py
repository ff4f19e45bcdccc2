"""KL divergence, same-top-token rate and perplexity of both sides on the same text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.measure.distributions import Sums, compare_logits
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance, side
from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecord, Fidelity

WINDOW = 512
"""Tokens that are scored together: the context that both sides see."""
LOGIT_BYTES = 256 * 1024 * 1024
"""Most bytes of one side's logits; a large vocabulary gets a smaller window."""
SMALLEST_WINDOW = 32


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
    progress: Callable[[str, float], None] | None = None,
) -> Fidelity:
    """Score documents with both sides in the same runtime, window by window.

    Args:
        parent: Full-precision folder or file.
        quantized: Quantized folder or file.
        text: JSONL with `text` (or `messages`), or plain text with a document per paragraph.
        parent_weights: Weights digest of the parent.
        quantized_weights: Weights digest of the quantized model.
        runtime: Runtime for both sides; None for the first that loads the quantized one.
        settings: Settings of the runtime (`threads`), equal on both sides.
        cache: Folder for converted twins.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: The file does not exist or holds no documents.
        EvidenceError: The sides do not share a tokenizer, a side gives NaN, or no document has two tokens.
        ArtifactError: A side does not load.
    """
    report = progress or (lambda message, fraction: None)
    documents = list(dict.fromkeys(read_documents(text)))
    twins = cache / "twins" if cache else None
    right_adapter = runtime_for(quantized, preferred=runtime)
    left_adapter = runtime_for(parent, preferred=right_adapter.name)
    records = []
    with (
        left_adapter.open(parent, cache=twins, **(settings or {})) as left,
        right_adapter.open(quantized, cache=twins, **(settings or {})) as right,
    ):
        window = _window(left, right)
        for index, document in enumerate(documents):
            report("scoring documents", index / len(documents))
            if (record := _score(left, right, document, window)) is not None:
                records.append(record)
        left_facts, right_facts = left.facts(), right.facts()
    if not records:
        raise EvidenceError(
            f"No document of {text.name} has two tokens.", why="Nothing was scored.", fix="give longer documents"
        )
    report("done", 1.0)
    return Fidelity.measured(
        provenance=provenance(*RUNTIME_LIBRARIES, "numpy"),
        parent=side(parent_weights, left_facts, parent),
        quantized=side(quantized_weights, right_facts, quantized),
        data=file_digest(text),
        settings={"window": window, **(settings or {})},
        documents=tuple(records),
    )


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


def _score(parent: Runtime, quantized: Runtime, text: str, window: int) -> DocumentRecord | None:
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
    if not total.tokens:
        return None
    return DocumentRecord(
        id=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        tokens=total.tokens,
        parent_nll=total.parent_nll,
        quantized_nll=total.quantized_nll,
        kl=total.kl,
        kl_max=total.kl_max,
        same_top=total.same_top,
        identical=total.identical,
    )


def _windows(tokens: list[int], window: int) -> Iterator[list[int]]:
    """Windows that overlap by one token, so that every token but the first is predicted exactly once."""
    for start in range(0, len(tokens) - 1, window):
        yield tokens[start : start + window + 1]

"""KL divergence, same-top-token rate and perplexity of both sides on the same text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.provenance import provenance, side
from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecord, Fidelity

WINDOW = 512
"""Tokens per document that are scored: the context both sides see."""
BLOCK = 64
"""Positions whose distributions are in memory at once, in double precision."""


def measure(
    parent: Path,
    quantized: Path,
    *,
    text: Path,
    parent_weights: str,
    quantized_weights: str,
    runtime: str | None = None,
    cache: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Fidelity:
    """Score documents with both sides, one document at a time.

    Args:
        parent: Full-precision folder or file.
        quantized: Quantized folder or file.
        text: JSONL with `text` (or `messages`), or plain text with a document per paragraph.
        parent_weights: Weights digest of the parent.
        quantized_weights: Weights digest of the quantized model.
        runtime: Runtime for both sides; None for the first that loads them.
        cache: Folder for converted twins.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: The file does not exist or holds no documents.
        EvidenceError: The sides do not share a vocabulary, or no document has two tokens.
    """
    report = progress or (lambda message, fraction: None)
    documents = read_documents(text)
    twins = cache / "twins" if cache else None
    left_adapter, right_adapter = runtime_for(parent, preferred=runtime), runtime_for(quantized, preferred=runtime)
    records = []
    with left_adapter.open(parent, cache=twins) as left, right_adapter.open(quantized, cache=twins) as right:
        if left.vocabulary_size != right.vocabulary_size:
            raise EvidenceError(
                f"The sides have vocabularies of {left.vocabulary_size} and {right.vocabulary_size} tokens.",
                why="Their next-token distributions cannot be compared.",
                fix="name the version that it was quantized from as its parent",
            )
        for index, document in enumerate(documents):
            report("scoring documents", index / len(documents))
            if (record := _score(left, right, document)) is not None:
                records.append(record)
        left_facts, right_facts = left.facts(), right.facts()
    if not records:
        raise EvidenceError(
            f"No document of {text.name} has two tokens.", why="Nothing was scored.", fix="give longer documents"
        )
    report("done", 1.0)
    return Fidelity.measured(
        provenance=provenance("xllamacpp", "transformers", "torch"),
        parent=side(parent_weights, left_facts),
        quantized=side(quantized_weights, right_facts),
        data=file_digest(text),
        settings={"window": WINDOW},
        documents=tuple(records),
    )


def _score(parent: Runtime, quantized: Runtime, text: str) -> DocumentRecord | None:
    window = min(WINDOW, parent.context_length, quantized.context_length)
    tokens = parent.tokenize(text)[:window]
    if len(tokens) < 2:
        return None
    sums = np.zeros(6)
    for block in _blocks(parent.logits(tokens), quantized.logits(tokens), tokens):
        sums[:3] += block[:3]
        sums[3] = max(sums[3], block[3])
        sums[4:] += block[4:]
    return DocumentRecord(
        id=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        tokens=len(tokens) - 1,
        parent_nll=float(sums[0]),
        quantized_nll=float(sums[1]),
        kl=float(sums[2]),
        kl_max=float(sums[3]),
        same_top=int(sums[4]),
        identical=int(sums[5]),
    )


def _blocks(
    parent: NDArray[np.float32], quantized: NDArray[np.float32], tokens: list[int]
) -> Iterator[tuple[float, float, float, float, float, float]]:
    """Sums over blocks of positions: NLL of both, KL, its maximum, same top token, bitwise equal log-probability."""
    following = np.array(tokens[1:])
    for start in range(0, len(following), BLOCK):
        end = min(start + BLOCK, len(following))
        p, q = _log_softmax(parent[start:end]), _log_softmax(quantized[start:end])
        rows = np.arange(end - start)
        p_token, q_token = p[rows, following[start:end]], q[rows, following[start:end]]
        kl = np.maximum(np.sum(np.exp(p) * (p - q), axis=1), 0.0)
        yield (
            float(-p_token.sum()),
            float(-q_token.sum()),
            float(kl.sum()),
            float(kl.max()),
            float(np.sum(p.argmax(axis=1) == q.argmax(axis=1))),
            float(np.sum(p_token == q_token)),
        )


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))



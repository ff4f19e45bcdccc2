"""Fidelity against log-probabilities that llama.cpp saved: nobody here saw the parent run, so it counts as imported."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.distributions import Sums, blocks, divergence, log_softmax, sums_of
from mlflow_quantgov.evidence.measure.documents import file_digest
from mlflow_quantgov.evidence.measure.fidelity_work import (
    Cost,
    KeptRecords,
    Progress,
    Unit,
    check_number,
    identity,
    score_all,
    warnings_of,
)
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance, side
from mlflow_quantgov.evidence.measure.saved_logits import SavedLogits, SavedRows
from mlflow_quantgov.evidence.predicates.base import Side
from mlflow_quantgov.evidence.predicates.fidelity import Fidelity
from mlflow_quantgov.evidence.statement import sha256_digest

CHUNK_BYTES = 1 << 30
"""Most bytes of one chunk's logits."""
RANGE = 16.0
"""Nats below the most likely token at which llama.cpp cuts."""
_ROUNDED = (
    "{sides} log-probabilities were saved by llama.cpp, rounded to 16 bit and cut below e^-16 of the most likely token. "
    "Both perplexities count rarer tokens as that likely; KL is over the tokens above, so a little too small where much lies "
    "below."
)
_UNSEEN = "Whether the quantization engaged cannot be seen bit by bit against rounded numbers."


def measure_saved(
    parent_logits: Path,
    quantized: Path | None,
    *,
    quantized_logits: Path | None = None,
    parent_weights: str,
    quantized_weights: str,
    runtime: str | None = None,
    settings: dict[str, Any] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Fidelity:
    """Compare with a file of `llama-perplexity --save-all-logits`, chunk by chunk, on the tokens that it holds.

    Args:
        parent_logits: What the parent was saved to.
        quantized: Quantized folder or file, which is run here; not looked at where `quantized_logits` is given.
        quantized_logits: What the quantized model was saved to, for the same tokens.
        parent_weights: Weights digest of the parent, as claimed.
        quantized_weights: Weights digest of the quantized model.
        runtime: Runtime for the quantized model; None for the first that loads it.
        settings: Settings of the runtime.
        cache: Folder for converted twins, and for the records of chunks that were scored.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: A file is damaged, is none of llama.cpp's, or the two hold different tokens.
        EvidenceError: The vocabularies differ, or a side gives NaN.
        ArtifactError: The quantized model does not load.
    """
    report = progress or (lambda message, fraction: None)
    with ExitStack() as stack:
        left = stack.enter_context(SavedLogits(parent_logits))
        check_number(left.chunks)
        report("reading the saved logits", 0.0)
        data = file_digest(parent_logits)
        left_side = _side(parent_weights, left, data)
        other: _Quantized
        if quantized_logits is not None:
            right = stack.enter_context(SavedLogits(quantized_logits))
            _check_same(left, right)
            other = _Saved(left, right)
            digest = file_digest(quantized_logits)
            right_side, keys = _side(quantized_weights, right, digest), [digest]
        else:
            assert quantized is not None
            adapter = runtime_for(quantized, preferred=runtime)
            report("loading the quantized model", 0.0)
            twins = cache / "twins" if cache else None
            model = stack.enter_context(adapter.open(quantized, cache=twins, **(settings or {})))
            other = _Live(left, model)
            facts = model.facts()
            right_side = side(quantized_weights, facts, quantized)
            keys = identity(right_side, facts)
        chunks = [_unit(left, other, chunk) for chunk in range(left.chunks)]
        records = score_all(
            list({one.id: one for one in chunks}.values()),
            KeptRecords(cache, ["saved", data, *keys]),
            lambda pending: _cost(left, other, pending),
            report,
        )
    report("done", 1.0)
    both = quantized_logits is not None
    return Fidelity.measured(
        provenance=provenance(*RUNTIME_LIBRARIES, "numpy", imported=True),
        parent=left_side,
        quantized=right_side,
        data=data,
        distributions="saved-16-bit",
        settings={"chunk": left.context, "scored": left.positions, **(settings or {})},
        documents=tuple(records),
        warnings=(
            *warnings_of(records),
            _ROUNDED.format(sides="Both sides'" if both else "The parent's"),
            *(() if both else (_UNSEEN,)),
        ),
    )


class _Live:
    """The quantized model, run here on the file's tokens."""

    def __init__(self, saved: SavedLogits, model: Runtime) -> None:
        if model.vocabulary_size != saved.vocabulary:
            raise EvidenceError(
                f"The saved logits have {saved.vocabulary} tokens, the quantized model has {model.vocabulary_size}.",
                why="Their next-token distributions cannot be compared.",
                fix="save the logits of the version that it was quantized from",
            )
        if saved.context > model.context_length or 4 * saved.context * saved.vocabulary > CHUNK_BYTES:
            raise UsageError(
                f"{saved.path.name} has chunks of {saved.context} tokens, more than are scored at once here.",
                why="A chunk is scored in one piece, as it was saved.",
                fix="llama-perplexity -m PARENT.gguf -f TEXT -c 512 --save-all-logits FILE",
            )
        self._saved, self._model = saved, model
        self._begin = model.tokenize("", add_special=True)[:1]
        self._chunk, self._logits = -1, np.empty((0, 0), np.float32)

    def rows(self, chunk: int, part: slice) -> tuple[NDArray[np.float64], NDArray[np.uint16] | None]:
        """Log-probabilities at some of a chunk's saved positions; never rounded."""
        if chunk != self._chunk:
            self._logits = np.empty((0, 0), np.float32)  # freed before the next ones are made
            tokens = self._saved.tokens(chunk)
            self._logits = self._model.logits([*self._begin, *tokens[len(self._begin) :]])
            self._chunk = chunk
        first = self._saved.first
        return log_softmax(self._logits[first + part.start : first + part.stop]), None


class _Saved:
    """The quantized model's own saved logits."""

    def __init__(self, parent: SavedLogits, saved: SavedLogits) -> None:
        self._parent, self._saved = parent, saved

    def rows(self, chunk: int, part: slice) -> tuple[NDArray[np.float64], NDArray[np.uint16] | None]:
        """Log-probabilities at some of a chunk's positions, and their very bytes."""
        if part.start == 0 and self._saved.tokens(chunk) != self._parent.tokens(chunk):
            raise _other_tokens(self._saved)
        found = self._saved.rows(chunk, part)
        return found.logs, found.raw


_Quantized = _Live | _Saved


def compare_saved(
    parent: SavedRows,
    quantized: NDArray[np.float64],
    following: NDArray[np.int64],
    raw: NDArray[np.uint16] | None = None,
) -> Sums:
    """Compare saved log-probabilities with another model's, over the tokens that the file did not cut.

    Both distributions are conditioned on those tokens, so that equal models have a KL of 0 up to rounding. Times the
    parent's probability of them (hardly below 1), that is a lower bound of the KL over all tokens (chain rule; Cover and
    Thomas, Elements of Information Theory, 2.5). llama.cpp itself sums over the same tokens without conditioning.

    Args:
        parent: Rows of the file, shape [positions, vocabulary].
        quantized: Log-probabilities of the other model, same shape. It is overwritten.
        following: The token that really followed, per position.
        raw: The other side's bytes, where it was saved too: only equal rows count as identical.
    """
    rows = np.arange(len(following))
    same_top = parent.logs.argmax(axis=1) == quantized.argmax(axis=1)
    p_token = parent.logs[rows, following]
    # Cut as the parent's are, or equal models would have different perplexities.
    q_token = np.maximum(quantized[rows, following], quantized.max(axis=1) - RANGE)
    p = parent.logs
    for logs in (p, quantized):
        logs[parent.cut] = -np.inf
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    identical = np.zeros(len(rows), bool) if raw is None else (raw == parent.raw).all(axis=1)
    return sums_of(p_token, q_token, divergence(p, quantized), same_top=same_top, identical=identical)


def _unit(saved: SavedLogits, other: _Quantized, chunk: int) -> Unit:
    tokens = np.array(saved.tokens(chunk), dtype="<i4")
    return Unit(sha256_digest(tokens.tobytes()), saved.positions, _scorer(saved, other, chunk, saved.positions))


def _scorer(saved: SavedLogits, other: _Quantized, chunk: int, positions: int) -> Callable[[], Sums]:
    def score() -> Sums:
        following = np.array(saved.tokens(chunk)[saved.first + 1 :])
        total = Sums()
        for part in blocks(positions, saved.vocabulary):
            quantized, raw = other.rows(chunk, part)
            total += compare_saved(saved.rows(chunk, part), quantized, following[part], raw)
        return total

    return score


def _cost(saved: SavedLogits, other: _Quantized, pending: Sequence[Unit]) -> Cost:
    """By one block of the first chunk."""
    part = next(blocks(saved.positions, saved.vocabulary))
    begun = time.perf_counter()
    _scorer(saved, other, 0, part.stop)()
    spent = time.perf_counter() - begun
    shares = 1.0 if isinstance(other, _Live) else saved.positions / part.stop
    return Cost(saved.positions * len(pending), spent * shares * len(pending))


def _check_same(parent: SavedLogits, quantized: SavedLogits) -> None:
    left, right = ((one.context, one.vocabulary, one.chunks) for one in (parent, quantized))
    if left != right:
        raise _other_tokens(quantized)


def _other_tokens(saved: SavedLogits) -> UsageError:
    return UsageError(
        f"{saved.path.name} was saved for other tokens than the parent's file.",
        why="Distributions are compared after the same text.",
        fix="run llama-perplexity on both models with the same text, -c and --chunks",
    )


def _side(weights: str, saved: SavedLogits, digest: str) -> Side:
    """What a file says of the model behind it: nothing but its vocabulary."""
    return Side(
        weights=weights,
        runtime="llama.cpp, saved logits",
        version="unknown",
        twin="imported",
        settings={"file": digest, "context": saved.context, "vocabulary": saved.vocabulary, "chunks": saved.chunks},
    )

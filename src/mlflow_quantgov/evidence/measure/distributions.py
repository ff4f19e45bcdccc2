"""Next-token distributions of two models, compared in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.errors import EvidenceError

BLOCK_ELEMENTS = 1 << 21
"""Numbers of one side that are in double precision at once (16 MB), whatever the vocabulary's size."""


@dataclass(frozen=True)
class Sums:
    """Sums over scored positions, in nats."""

    tokens: int = 0
    parent_nll: float = 0.0
    quantized_nll: float = 0.0
    kl: float = 0.0
    kl_max: float = 0.0
    same_top: int = 0
    identical: int = 0

    def __add__(self, other: Sums) -> Sums:
        """Sums over both sets of positions."""
        return Sums(
            self.tokens + other.tokens,
            self.parent_nll + other.parent_nll,
            self.quantized_nll + other.quantized_nll,
            self.kl + other.kl,
            max(self.kl_max, other.kl_max),
            self.same_top + other.same_top,
            self.identical + other.identical,
        )


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural log of the softmax over the last axis, with the maximum subtracted first.

    Args:
        logits: Shape [positions, vocabulary].

    Returns:
        The same shape, in double precision.
    """
    shifted: NDArray[np.float64] = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def compare_logits(parent: NDArray[np.float32], quantized: NDArray[np.float32], following: Sequence[int]) -> Sums:
    """Compare two models' distributions position by position.

    KL(parent || quantized) = sum over the vocabulary of p (ln p - ln q); Kullback and Leibler (1951).

    Args:
        parent: Logits of the parent, shape [positions, vocabulary].
        quantized: Logits of the quantized model, same shape.
        following: The token that really followed, per position.

    Raises:
        EvidenceError: A side gave no finite numbers.
    """
    total = Sums()
    for rows in _blocks(len(following), parent.shape[1]):
        total += _compare_block(parent[rows], quantized[rows], np.asarray(following[rows]))
    return total


def _blocks(positions: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, BLOCK_ELEMENTS // vocabulary)
    for start in range(0, positions, size):
        yield slice(start, min(start + size, positions))


def _compare_block(parent: NDArray[np.float32], quantized: NDArray[np.float32], following: NDArray[np.int64]) -> Sums:
    p, q = log_softmax(parent), log_softmax(quantized)
    rows = np.arange(len(following))
    p_token, q_token = p[rows, following], q[rows, following]
    if not (np.isfinite(p_token).all() and np.isfinite(q_token).all()):
        side = "parent" if not np.isfinite(p_token).all() else "quantized model"
        raise _not_finite(side)
    weights = np.exp(p)
    # A token that the parent never gives adds nothing, even where the other side masks it too.
    kl = np.where(weights > 0, weights * np.subtract(p, q, where=weights > 0, out=np.zeros_like(p)), 0.0).sum(axis=1)
    if not np.isfinite(kl).all():
        raise _not_finite("quantized model")
    kl = np.maximum(kl, 0.0)
    return Sums(
        tokens=len(following),
        parent_nll=float(-p_token.sum()),
        quantized_nll=float(-q_token.sum()),
        kl=float(kl.sum()),
        kl_max=float(kl.max()),
        same_top=int((parent.argmax(axis=1) == quantized.argmax(axis=1)).sum()),
        identical=int((p_token == q_token).sum()),
    )


def _not_finite(side: str) -> EvidenceError:
    return EvidenceError(
        f"The {side} gives NaN or infinite log-probabilities.",
        why="Such a model is broken, and no distance to it can be stated.",
        fix="quantize again, and look at the answers of mlflow_quantgov.load_model first",
    )

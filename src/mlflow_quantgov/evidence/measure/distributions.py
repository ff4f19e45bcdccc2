"""Next-token distributions of two models, compared in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.predicates.fidelity import KL_EDGES, DocumentRecord

BLOCK_ELEMENTS = 1 << 21
"""Numbers of one side that are in double precision at once (16 MB), whatever the vocabulary's size."""
_EDGES = np.array(KL_EDGES)


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
    kl_counts: Counter[int] = field(default_factory=Counter)
    """Bin of `KL_EDGES` to number of positions."""

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
            self.kl_counts + other.kl_counts,
        )

    def record(self, identity: str) -> DocumentRecord:
        """The record of a document with at least one scored position, by the digest of its text."""
        return DocumentRecord(
            id=identity,
            tokens=self.tokens,
            parent_nll=self.parent_nll,
            quantized_nll=self.quantized_nll,
            kl=self.kl,
            kl_max=self.kl_max,
            same_top=self.same_top,
            identical=self.identical,
            kl_counts=tuple(sorted(self.kl_counts.items())),
        )


def sums_of(
    parent: NDArray[np.float64],
    quantized: NDArray[np.float64],
    kl: NDArray[np.float64],
    *,
    same_top: NDArray[np.bool_],
    identical: NDArray[np.bool_],
) -> Sums:
    """Sums over positions.

    Args:
        parent: Log-probability of the token that really followed, per position, under the parent.
        quantized: The same under the quantized model.
        kl: KL(parent || quantized) per position; rounding below 0 is taken for 0.
        same_top: Whether both have the same most likely token.
        identical: Whether both gave bitwise the same numbers.

    Raises:
        EvidenceError: A number is not finite.
    """
    if not np.isfinite(parent).all():
        raise not_finite("parent")
    if not (np.isfinite(quantized).all() and np.isfinite(kl).all()):
        raise not_finite("quantized model")
    kl = np.maximum(kl, 0.0)
    bins, counts = np.unique(np.searchsorted(_EDGES, kl, side="right"), return_counts=True)
    return Sums(
        tokens=len(kl),
        parent_nll=float(-parent.sum()),
        quantized_nll=float(-quantized.sum()),
        kl=float(kl.sum()),
        kl_max=float(kl.max(initial=0.0)),
        same_top=int(same_top.sum()),
        identical=int(identical.sum()),
        kl_counts=Counter(dict(zip(bins.tolist(), counts.tolist(), strict=True))),
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


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p || q) = sum over the vocabulary of p (ln p - ln q), position by position; Kullback and Leibler (1951).

    Args:
        p: Log-probabilities, shape [positions, vocabulary]; -inf for tokens that never come.
        q: The same of the other model. It is overwritten.

    Returns:
        Nats, shape [positions]; not finite where `q` excludes what `p` allows.
    """
    weights = np.exp(p)
    # A token that the parent never gives adds nothing, even where the other side masks it too.
    np.subtract(p, q, out=q, where=weights > 0)
    q[weights <= 0] = 0.0
    q *= weights
    found: NDArray[np.float64] = q.sum(axis=1)
    return found


def compare_logits(parent: NDArray[np.float32], quantized: NDArray[np.float32], following: Sequence[int]) -> Sums:
    """Compare two models' distributions position by position.

    Args:
        parent: Logits of the parent, shape [positions, vocabulary].
        quantized: Logits of the quantized model, same shape.
        following: The token that really followed, per position.

    Raises:
        EvidenceError: A side gave no finite numbers.
    """
    total = Sums()
    for rows in blocks(len(following), parent.shape[1]):
        total += _compare_block(parent[rows], quantized[rows], np.asarray(following[rows]))
    return total


def blocks(positions: int, vocabulary: int) -> Iterator[slice]:
    """Positions of which `BLOCK_ELEMENTS` numbers of one side are handled at once, at least one."""
    size = max(1, BLOCK_ELEMENTS // vocabulary)
    for start in range(0, positions, size):
        yield slice(start, min(start + size, positions))


def _compare_block(parent: NDArray[np.float32], quantized: NDArray[np.float32], following: NDArray[np.int64]) -> Sums:
    p, q = log_softmax(parent), log_softmax(quantized)
    rows = np.arange(len(following))
    p_token, q_token = p[rows, following], q[rows, following]
    return sums_of(
        p_token,
        q_token,
        divergence(p, q),
        same_top=parent.argmax(axis=1) == quantized.argmax(axis=1),
        identical=p_token == q_token,
    )


def not_finite(side: str) -> EvidenceError:
    """The error for a side whose log-probabilities are no numbers."""
    return EvidenceError(
        f"The {side} gives NaN or infinite log-probabilities.",
        why="Such a model is broken, and no distance to it can be stated.",
        fix="quantize again, and look at the answers of mlflow_quantgov.load_model first",
    )

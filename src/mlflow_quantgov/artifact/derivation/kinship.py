"""Is one model the other, trained further or rounded? Shown by how their matrices correlate.

Weights that were trained on move a little from where they were, so every matrix of a fine-tune, or of a checkpoint from
quantization-aware training, stays correlated with the original's. Another run from other random numbers has matrices that
have nothing in common with it: of n weights the correlation is then 0, give or take 1 / sqrt(n). See
docs/explanation/kinship.md for what was measured, and for what this cannot show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlflow_quantgov.artifact.dequantize import Matrix, matrices
from mlflow_quantgov.artifact.derivation.pairs import pair

KIN = 0.5
"""Least correlation of every matrix. Trained further, however hard: 0.62 and more was measured; of another seed: 0.01 and less."""
_LEAST_WEIGHTS = 256
"""Smaller matrices correlate by chance."""


@dataclass(frozen=True)
class MatrixKinship:
    """One matrix of both models."""

    name: str
    weights: int
    correlation: float
    """Pearson's, over all weights; 1 for two that are equal, 0 where one of them is constant."""
    distance: float
    """Frobenius norm of the difference over that of the original's matrix."""


@dataclass(frozen=True)
class Kinship:
    """Whether one model is another one, trained further or rounded."""

    matrices: tuple[MatrixKinship, ...]
    distance: float
    """Norm of the difference of all tensors, vectors too, over that of the original."""
    problem: str | None = None
    """Why they could not be compared whole."""

    @property
    def farthest(self) -> MatrixKinship | None:
        """The matrix that correlates least."""
        return min(self.matrices, key=lambda one: one.correlation, default=None)

    @property
    def holds(self) -> bool:
        """Whether every matrix is the original's, moved."""
        least = self.farthest
        return self.problem is None and least is not None and least.correlation >= KIN

    @property
    def denied(self) -> bool:
        """Whether most matrices have nothing in common with the original's: another model, and not a problem of reading."""
        strange = sum(one.correlation < KIN for one in self.matrices)
        return self.problem is None and 2 * strange > len(self.matrices)


def kinship(model: Path, original: Path) -> Kinship:
    """Compare a model with a full-precision one, matrix by matrix.

    Both are read through memory maps, a few rows at a time; memory does not grow with the matrices. A matrix of the original
    that holds one number only has nothing to correlate with, and is left out.

    Args:
        model: Folder or file of the model that is said to come from the other one; of quantized matrices the numbers count.
        original: Folder or file of the other one.

    Raises:
        ArtifactError: One of them cannot be inspected or read.
    """
    pairs = pair(matrices(model), matrices(original))
    if pairs.problem is not None:
        return Kinship((), 1.0, pairs.problem)
    if pairs.unreadable:
        return Kinship((), 1.0, f"{pairs.unreadable[0].name} cannot be read here.")
    found = []
    moved = norm = 0.0
    for name in (*pairs.plain, *pairs.quantized):
        sums = _Sums(pairs.child[name], pairs.parent[name])
        moved, norm = moved + sums.moved, norm + sums.norm
        if pairs.child[name].rows > 1 and sums.count >= _LEAST_WEIGHTS and sums.varies:
            found.append(MatrixKinship(name, sums.count, sums.correlation, _root_of_share(sums.moved, sums.norm)))
    broken = [one.name for one in found if not np.isfinite([one.correlation, one.distance]).all()]
    if broken or not np.isfinite(moved):
        return Kinship(tuple(found), 1.0, f"{broken[0] if broken else 'A vector'} holds numbers that are not finite.")
    return Kinship(tuple(found), _root_of_share(moved, norm), None if found else "They have no matrices to compare.")


class _Sums:
    """Moments of two matrices, gathered row block by row block."""

    def __init__(self, one: Matrix, other: Matrix) -> None:
        self.count = one.rows * one.columns
        self.moved = self.norm = 0.0
        first = second = squared = products = 0.0
        for start, stop in one.blocks():
            mine = one.block(start, stop).values.astype(np.float64)
            theirs = other.block(start, stop).values.astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                self.moved += float(np.square(mine - theirs).sum())
                self.norm += float(np.square(theirs).sum())
                first, second = first + float(mine.sum()), second + float(theirs.sum())
                squared, products = squared + float(np.square(mine).sum()), products + float((mine * theirs).sum())
        mean, original_mean = first / self.count, second / self.count
        variance = self.norm / self.count - original_mean * original_mean
        self.varies = not variance <= 1e-9 * original_mean * original_mean
        spread = (squared / self.count - mean * mean) * variance
        shared = products / self.count - mean * original_mean
        self.correlation = float(self.moved == 0) if not spread > 0 else shared / spread**0.5
        if not np.isfinite(squared + self.norm):
            self.correlation = float("nan")


def _root_of_share(part: float, whole: float) -> float:
    return float((part / whole) ** 0.5) if whole else float(part > 0)

"""Witness scores of a kernel two-sample test, document by document (see evidence/likeness/discrepancy.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.likeness.discrepancy import estimate_and_error, halves

PERMUTATIONS = 200
SPLITS = 20
_LEAST_SPREAD = 1e-3
"""Of a production whose documents are all alike; the kernel goes from 0 to 1."""
_DIGITS = 6


@dataclass(frozen=True)
class Witness:
    """Scores of one test, and what to read them against."""

    calibration: tuple[float, ...]
    production: tuple[float, ...]
    concentration: tuple[float, float]
    """Largest variance along one direction, of calibration and of production, as shares of production's spread."""
    chance: float
    """Share of relabelled samples that lie at least as far apart (permutation test; Gretton et al. 2012)."""
    itself: float
    """Mean squared discrepancy of random halves of production: what no difference looks like."""


def witness(calibration: NDArray[np.floating], production: NDArray[np.floating]) -> Witness:
    """Score documents by the other half's witness function, as a share of production's own spread.

    The kernel is Gaussian; its width is the median distance within production. The spread is 1 - the mean kernel between
    two production documents: the variance of production in the kernel's feature space.

    Args:
        calibration: Features, shape [documents, features], at least four rows, in an order that is random to what they say.
        production: The same for production.
    """
    x, y = np.asarray(calibration, dtype=np.float64), np.asarray(production, dtype=np.float64)
    kernel, spread = gaussian(np.vstack([x, y]), len(x))
    return witness_of(kernel, len(x), spread)


def witness_of(kernel: NDArray[np.float64], calibration: int, spread: float) -> Witness:
    """The same for a kernel of one's own.

    Args:
        kernel: Positive semidefinite, shape [documents of both, documents of both], calibration first.
        calibration: Number of calibration documents.
        spread: Variance of production in the kernel's feature space.
    """
    at_x, at_y = np.arange(calibration), np.arange(calibration, len(kernel))
    left, right = _scores(kernel, at_x, at_y, spread)
    return Witness(
        tuple(np.round(left, _DIGITS).tolist()),
        tuple(np.round(right, _DIGITS).tolist()),
        (_concentration(kernel[at_x][:, at_x]) / spread, _concentration(kernel[at_y][:, at_y]) / spread),
        _chance(kernel, calibration),
        _itself(kernel, at_y, spread),
    )


def distance(kernel: NDArray[np.float64], calibration: int, spread: float) -> float:
    """The squared discrepancy alone, as a share of production's spread."""
    at_x, at_y = np.arange(calibration), np.arange(calibration, len(kernel))
    left, right = _scores(kernel, at_x, at_y, spread)
    return estimate_and_error(left.tolist(), right.tolist())[0]


def gaussian(rows: NDArray[np.float64], calibration: int) -> tuple[NDArray[np.float64], float]:
    """Gaussian kernel between all rows, calibration first, and production's spread."""
    norms = (rows**2).sum(axis=1)
    squares = np.maximum(norms[:, None] + norms[None, :] - 2 * rows @ rows.T, 0.0)
    apart = np.triu_indices(len(rows) - calibration, 1)
    within = squares[calibration:, calibration:][apart]
    width = float(np.median(within)) or float(within.mean()) or 1.0
    np.exp(np.divide(squares, -width, out=squares), out=squares)
    return squares, max(1.0 - float(squares[calibration:, calibration:][apart].mean()), _LEAST_SPREAD)


def _scores(
    kernel: NDArray[np.float64], at_x: NDArray[np.int64], at_y: NDArray[np.int64], spread: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.empty(len(at_x)), np.empty(len(at_y))
    of_x, of_y = halves(len(at_x)), halves(len(at_y))
    for mine, other in ((0, 1), (1, 0)):
        told_x, told_y = at_x[of_x[other]], at_y[of_y[other]]
        for scores, at, part in ((left, at_x, of_x[mine]), (right, at_y, of_y[mine])):
            rows = kernel[at[part]]
            scores[part] = (rows[:, told_x].mean(axis=1) - rows[:, told_y].mean(axis=1)) / spread
    return left, right


def _concentration(kernel: NDArray[np.float64]) -> float:
    """Largest eigenvalue of the covariance in the kernel's feature space."""
    from scipy.linalg import eigh

    means = kernel.mean(axis=0)
    centred = kernel - means[:, None] - means[None, :] + means.mean()
    last = len(kernel) - 1
    largest = eigh(centred, eigvals_only=True, subset_by_index=[last, last])[0]
    return round(max(float(largest), 0.0) / last, _DIGITS)


def _chance(kernel: NDArray[np.float64], calibration: int) -> float:
    generator = np.random.default_rng(0)
    total = len(kernel)
    signs = np.full(total, -1.0 / (total - calibration))
    signs[:calibration] = 1.0 / calibration
    drawn = np.array([signs, *(generator.permutation(signs) for _ in range(PERMUTATIONS))])
    distances = np.einsum("ij,ij->i", drawn @ kernel, drawn)
    return float((1 + (distances[1:] >= distances[0] - 1e-12).sum()) / (1 + PERMUTATIONS))


def _itself(kernel: NDArray[np.float64], at: NDArray[np.int64], spread: float) -> float:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(SPLITS if len(at) >= 8 else 0):
        drawn = generator.permutation(at)
        middle = len(drawn) // 2
        found.append(estimate_and_error(*map(tuple, _scores(kernel, drawn[:middle], drawn[middle:], spread)))[0])
    return float(np.mean(found)) if found else 0.0

"""Area under the ROC curve between two sides' scores, and bounds that hold whatever their distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def area_under_curve(calibration: Sequence[float], production: Sequence[float]) -> float:
    """P(score of a calibration document > score of a production document), ties counted half (Mann and Whitney 1947).

    Args:
        calibration: Scores, at least one.
        production: Scores, at least one.

    Returns:
        A number from 0 to 1.
    """
    left: NDArray[np.float64] = np.asarray(calibration, dtype=np.float64)
    right = np.sort(np.asarray(production, dtype=np.float64))
    below = np.searchsorted(right, left, side="left")
    not_above = np.searchsorted(right, left, side="right")
    return float((below + not_above).sum() / (2 * len(left) * len(right)))


def bounds(estimate: float, documents: int, quantile: float) -> tuple[float, float]:
    """Bounds of an area under the curve, one-sided each.

    The variance of the Mann-Whitney statistic is at most A (1 - A) / min(m, n) whatever the distributions
    (Van Dantzig 1951; Birnbaum and Klose 1957). Solving (estimate - A)^2 = z^2 A (1 - A) / min(m, n) for A, as
    Wilson (1927) does for a proportion, keeps a width above zero where the samples separate completely.

    Args:
        estimate: Area under the curve, 0 to 1.
        documents: Documents of the smaller side, at least 1.
        quantile: Normal quantile z of the confidence.
    """
    square = quantile**2 / documents
    centre = (estimate + square / 2) / (1 + square)
    half = np.sqrt(square * estimate * (1 - estimate) + square**2 / 4) / (1 + square)
    return max(0.0, min(estimate, float(centre - half))), min(1.0, max(estimate, float(centre + half)))

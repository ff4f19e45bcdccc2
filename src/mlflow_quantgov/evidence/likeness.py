"""Are calibration data and production traffic alike? A verdict that anyone can recompute from per-document scores.

The scores come from a classifier that tries to tell the two apart on documents that it has not seen (a classifier
two-sample test; Lopez-Paz and Oquab 2017). Where it cannot, the area under its ROC curve is near one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.7
"""Area under the curve that two samples may at most show; nobody can state a looser one."""
CONFIDENCE_Z = 1.6448536269514722
"""Normal quantile of one-sided 95 % confidence."""
MIN_DOCUMENTS = 20
"""Documents per side below which nothing passes."""


def judge(
    name: str, calibration: Sequence[float], production: Sequence[float], threshold: float = THRESHOLD
) -> dict[str, Any]:
    """Judge one test of likeness from its per-document scores.

    Passes where the upper bound of the area under the curve is below the threshold, fails where the lower bound is
    above it. A classifier that is reliably worse than chance points at near copies of the same documents on both
    sides, which tell nothing: inconclusive. The threshold is never looser than `THRESHOLD`.

    Args:
        name: Name of the test.
        calibration: One finite score per calibration document; higher says "calibration".
        production: One finite score per production document.
        threshold: Largest tolerated area under the curve, above 0.5.

    Returns:
        `name`, `estimate`, `lower`, `upper` (one-sided 95 % bounds each), `threshold`, `outcome`.
    """
    applied = min(float(threshold), THRESHOLD)
    estimate = area_under_curve(calibration, production)
    documents = min(len(calibration), len(production))
    lower, upper = bounds(estimate, documents)
    outcome = "inconclusive"
    if lower > applied:
        outcome = "fail"
    elif upper < applied and upper >= 1 - THRESHOLD and documents >= MIN_DOCUMENTS:
        outcome = "pass"
    return {
        "name": name,
        "estimate": estimate,
        "lower": lower,
        "upper": upper,
        "threshold": applied,
        "outcome": outcome,
    }


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


def bounds(estimate: float, documents: int) -> tuple[float, float]:
    """One-sided 95 % bounds of an area under the curve, each.

    The variance of the Mann-Whitney statistic is at most A (1 - A) / min(m, n) whatever the distributions
    (Van Dantzig 1951; Birnbaum and Klose 1957). Solving (estimate - A)^2 = z^2 A (1 - A) / min(m, n) for A, as
    Wilson (1927) does for a proportion, keeps a width above zero where the samples separate completely.

    Args:
        estimate: Area under the curve, 0 to 1.
        documents: Documents of the smaller side, at least 1.
    """
    square = CONFIDENCE_Z**2 / documents
    centre = (estimate + square / 2) / (1 + square)
    half = np.sqrt(square * estimate * (1 - estimate) + square**2 / 4) / (1 + square)
    return max(0.0, min(estimate, float(centre - half))), min(1.0, max(estimate, float(centre + half)))

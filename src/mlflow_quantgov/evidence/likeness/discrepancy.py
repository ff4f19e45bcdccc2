"""Squared distance of two samples' means in a feature space, from witness scores of documents held out in turn.

Both sides are cut into halves. Each half's documents are scored by the witness function of the other half: how much more
they resemble its calibration documents than its production documents. The mean score of calibration less that of
production is then an unbiased estimate of the squared maximum mean discrepancy, and since it is a mean of independent
documents given the other half, it is close to normal even where nothing differs (S. Shekhar, I. Kim and A. Ramdas, "A
permutation-free kernel two-sample test", NeurIPS 2022; here both halves take turns, and the bounds add their variances, which
is too wide by sqrt(2) where nothing differs and right where much does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def halves(documents: int) -> tuple[slice, slice]:
    """The first half, larger by one where the number is odd, and the rest."""
    middle = (documents + 1) // 2
    return slice(0, middle), slice(middle, documents)


def estimate_and_error(calibration: Sequence[float], production: Sequence[float]) -> tuple[float, float]:
    """Squared discrepancy and its standard error.

    Args:
        calibration: Witness score of each calibration document, in the order by which it was halved; at least four.
        production: The same for production.
    """
    left, right = np.asarray(calibration, dtype=np.float64), np.asarray(production, dtype=np.float64)
    estimate, variance = 0.0, 0.0
    for first, second in zip(halves(len(left)), halves(len(right)), strict=True):
        x, y = left[first], right[second]
        estimate += (math.fsum(x) / len(x) - math.fsum(y) / len(y)) / 2
        variance += float(x.var(ddof=1)) / len(x) + float(y.var(ddof=1)) / len(y)
    return estimate, math.sqrt(variance)


def bounds(
    estimate: float, error: float, documents: tuple[int, int], concentration: tuple[float, float], confidence: float
) -> tuple[float, float]:
    """Bounds of the squared discrepancy, one-sided each.

    The wider of two: Student's t on the smallest half, which is right where noise comes from many directions; and, where the
    samples vary mostly along one direction, the square of a bound for the distance d along it. There d has a standard error
    s = sqrt(c_x / m + c_y / n), the halves' product is d^2 but for their difference, whose mean square is s^2, and
    (sqrt(estimate + s^2) + z s)^2 bounds d^2 where the product itself is far from normal.

    Args:
        estimate: Squared discrepancy.
        error: Its standard error.
        documents: Documents of calibration and of production, m and n, at least four.
        concentration: Largest variance of calibration and of production along one direction, c_x and c_y, as shares of
            production's spread.
        confidence: Of each bound.
    """
    from scipy.stats import norm, t

    half = float(t.ppf(confidence, min(documents) // 2 - 1)) * error
    noise = math.sqrt(concentration[0] / documents[0] + concentration[1] / documents[1])
    reach = float(norm.ppf(confidence)) * noise
    seen = max(estimate, 0.0)
    upper = (math.sqrt(seen + noise**2) + reach) ** 2
    lower = max(math.sqrt(seen) - reach, 0.0) ** 2
    return min(estimate - half, lower, estimate), max(estimate + half, upper)

"""A lower confidence bound for a mean over clusters of bounded values, made for small samples and rare large losses.

The bound is Gaffke's. Give every cluster an independent Exp(1) weight, add one more cluster of the largest size that lost
everything it could, and take the (1 - confidence) quantile of the weighted mean. What was not seen is never taken not to
happen: the width stays above zero when all values are equal. For values of two kinds it is the Clopper-Pearson bound.

With clusters of differing sizes the mean over items is a ratio, total / size. It is above d exactly where the mean of
total - d * size is above 0, and that is a mean over clusters: the bound is Gaffke's for it, solved for d.

Sources: N. Gaffke, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
variable", Mathematical Methods of Statistics 14 (2005) 451-467; E. Learned-Miller and P. Thomas, "A new confidence
interval for the mean of a bounded random variable" (2019), arXiv:1905.06208. Its level is proved for two-point
distributions and conjectured for all others; docs/explanation/statistics.md says what was enumerated and simulated here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.statistics.exponential_sums import tail_estimate, tail_probability

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Clusters:
    """Clusters of items, equal ones counted once."""

    totals: Floats
    """Sum of the values in a cluster, shape [k]."""
    sizes: Floats
    """Items in a cluster, shape [k]."""
    counts: Floats
    """How many such clusters there are, shape [k]; need not be whole when planning."""

    @classmethod
    def of(cls, totals: Floats, sizes: Floats) -> Clusters:
        """Count equal clusters once; the order of the clusters does not matter."""
        distinct, counts = np.unique(np.column_stack([totals, sizes]), axis=0, return_counts=True)
        return cls(distinct[:, 0], distinct[:, 1], counts.astype(float))

    def negated(self) -> Clusters:
        """The same clusters with gains for losses."""
        return Clusters(-self.totals, self.sizes, self.counts)


def lower_bound(clusters: Clusters, worst: float, confidence: float) -> float:
    """Lower bound for the true mean per item.

    Args:
        clusters: Independent clusters.
        worst: Smallest value that an item can take.
        confidence: One-sided, between 0.5 and 1.

    Returns:
        A number that is at or below the true mean with at least this confidence.
    """
    parts = (clusters.totals, clusters.sizes, clusters.counts)
    return _remembered(*(np.asarray(one, dtype=np.float64).tobytes() for one in parts), worst, confidence)


@lru_cache(maxsize=512)
def _remembered(totals: bytes, sizes: bytes, counts: bytes, worst: float, confidence: float) -> float:
    """The same: several checks judge the same items, and each bound takes a hundredth of a second."""
    return _lower_bound(Clusters(*(np.frombuffer(one) for one in (totals, sizes, counts))), worst, confidence)


def _lower_bound(clusters: Clusters, worst: float, confidence: float) -> float:
    from scipy.optimize import brentq

    means = clusters.totals / clusters.sizes
    low, high = worst, float(means.max())
    if high <= low:
        return low
    level, largest = 1 - confidence, float(clusters.sizes.max())
    counts = np.append(clusters.counts, 1.0)

    def excess(mean: float, tail: Callable[[Floats, Floats], Floats] = tail_probability) -> float:
        """How well the clusters agree with a true mean of at most this, its p-value, over the level."""
        # At `low` the probability is 0 and at `high` it is 1, but for rounding.
        if not low < mean < high:
            return -level if mean <= low else confidence
        values = np.append(clusters.totals - mean * clusters.sizes, (worst - mean) * largest)
        return float(tail(values, counts)) - level

    # The root of the estimate is close, so that few exact probabilities are needed.
    wide = high - low
    near = float(brentq(excess, low, high, args=(tail_estimate,), xtol=1e-7 * wide))
    step = 1e-6 * wide
    while (below := excess(left := max(low, near - step))) * excess(right := min(high, near + step)) > 0:
        near, step = (left, 8 * step) if below > 0 else (right, 8 * step)
    return float(brentq(excess, left, right, xtol=1e-10 * wide, rtol=1e-14))


def lower_mean_bound(values: Floats, worst: float, confidence: float) -> float:
    """Lower bound for the mean of independent values, each at or above `worst`."""
    return lower_bound(Clusters.of(np.asarray(values, dtype=float), np.ones(len(values))), worst, confidence)

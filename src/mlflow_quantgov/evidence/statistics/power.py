"""How often the bound would show that a mean is above zero, and how many clusters that takes.

A cluster is one of a few values with known chances, and so is a sample of clusters: how often each value was drawn. With at
most three values (0/1 scores: lost, kept, gained) the trinomial is summed and nothing is simulated: for every number of the
largest value, the most of the smallest with which the sample still passes. With more values, samples are drawn from a fixed
seed and each is judged. Neither way assumes a normal distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.statistics.exponential_sums import tail_estimate, tail_probability

Floats = NDArray[np.float64]

MOST = 10_000_000
"""More clusters than this are not told apart."""
_ATOMS = 64
_NODES = 49
_CLOSEST = 100
_NEVER = 1e-200
_UNLIKELY = 1e-8
_SEED = 20050101


@dataclass(frozen=True)
class Draw:
    """What one cluster contributes: a value, above zero where it speaks for the claim."""

    values: Floats
    """Shape [k]."""
    chances: Floats
    """Of each value, shape [k]; they sum to 1."""
    worst: float
    """Smallest value that a cluster can take, seen or not; below zero."""

    @classmethod
    def of(cls, values: Floats, chances: Floats, worst: float) -> Draw:
        """Equal values once; more than 64 are shared out to the points of a grid, which keeps the mean."""
        values = np.maximum(np.round(values, 12), worst)
        distinct, place = np.unique(values, return_inverse=True)
        shares = np.bincount(place, weights=chances).astype(float)
        distinct, shares = distinct[shares > 0], shares[shares > 0] / shares.sum()
        if len(distinct) > _ATOMS:
            grid = np.linspace(distinct[0], distinct[-1], _ATOMS)
            position = (distinct - distinct[0]) / (grid[1] - grid[0])
            left = np.minimum(position.astype(int), _ATOMS - 2)
            right = position - left
            near, far = np.bincount(left, shares * (1 - right), _ATOMS), np.bincount(left + 1, shares * right, _ATOMS)
            shares = near.astype(float) + far
            distinct, shares = grid[shares > 0], shares[shares > 0]
        return cls(distinct, shares, worst)

    @cached_property
    def mean(self) -> float:
        """Mean of a cluster's value."""
        return float(self.values @ self.chances)

    @cached_property
    def deviation(self) -> float:
        """Standard deviation of a cluster's value."""
        return math.sqrt(float((self.values - self.mean) ** 2 @ self.chances))


def power(draw: Draw, clusters: int, level: float, samples: int) -> float:
    """Probability that the bound of `clusters` draws is at or above zero.

    Args:
        draw: One cluster.
        clusters: How many independent ones.
        level: 1 - confidence.
        samples: Simulated samples, where the values are more than three.
    """
    if clusters < 1 or draw.worst >= 0:
        return float(draw.worst >= 0)
    if len(draw.values) <= 3:
        return _exact(draw, clusters, level)
    counts = np.random.default_rng(_SEED).multinomial(clusters, draw.chances, size=samples).astype(float)
    values, counts = np.append(draw.values, draw.worst), np.column_stack([counts, np.ones(samples)])
    chance = tail_estimate(values, counts)
    # Estimates near the level are off by much the same share: it is taken from those that lie closest.
    close = np.argsort(np.abs(chance - level), kind="stable")[:_CLOSEST]
    exact = tail_probability(values, counts[close])
    chance *= np.median(exact / np.maximum(chance[close], 1e-300))
    chance[close] = exact
    return float(np.mean(chance <= level))


def clusters_needed(draw: Draw, level: float, wanted: float, samples: int) -> int:
    """Fewest clusters found that reach the wanted power, at most `MOST`.

    The power of counts goes up in small steps back and forth; the number returned reaches it, and the one before does not.
    Above 5,000 clusters (above 100, where samples are drawn) it is found to 0.5 %.
    """
    from scipy.special import ndtri

    if draw.mean <= 0:
        return MOST
    factor = float(ndtri(1 - level) + ndtri(wanted))
    guess = (factor * draw.deviation / draw.mean) ** 2 - math.log(level) * (draw.mean - draw.worst) / draw.mean / 3
    if guess >= MOST:
        return MOST
    exact = len(draw.values) <= 3

    def miss(clusters: int) -> float:
        found = power(draw, clusters, level, samples)
        # On this scale it is nearly straight in the square root of the number. At the wanted power it counts as reached.
        return float(ndtri(np.clip(found, 1e-9, 1 - 1e-9)) - ndtri(wanted)) + 1e-12

    high = max(1, math.ceil(guess))
    low, below, above = 0, -8.0, miss(high)
    while above < 0:
        low, below = high, above
        high = math.ceil(1.3 * high) + 1
        if high >= MOST:
            return MOST
        above = miss(high)
    halve = False
    while high - low > max(1, 0 if high <= (5000 if exact else 100) else high // 200):
        share = 0.5 if halve else below / (below - above)
        middle = math.floor((math.sqrt(low) + share * (math.sqrt(high) - math.sqrt(low))) ** 2)
        middle = min(max(middle, low + 1), high - 1)
        found = miss(middle)
        if found >= 0:
            high, above = middle, found
        else:
            low, below = middle, found
        halve = not halve
    return high


def _exact(draw: Draw, clusters: int, level: float) -> float:
    """The trinomial, summed; the boundary between its samples is interpolated where there are many."""
    from scipy.interpolate import PchipInterpolator
    from scipy.stats import binom

    values, chances = draw.values, draw.chances
    while len(values) < 3:
        values, chances = np.append(values, values[-1]), np.append(chances, 0.0)
    # The binomial density overflows where a chance is next to the least number that there is; such a cluster never comes.
    low, middle, high = np.where(chances < _NEVER, 0.0, chances)
    first, last = (int(binom.ppf(p, clusters, high)) for p in (_UNLIKELY, 1 - _UNLIKELY))
    gains = np.arange(first, last + 1)
    nodes = gains if len(gains) <= _NODES else np.unique(np.linspace(first, last, _NODES).round())
    most = _most_losses(values, draw.worst, clusters, nodes.astype(float), level)
    if len(nodes) < len(gains):
        most = PchipInterpolator(nodes, most)(gains)
    # A hair above the root, so that a sample that lies on the boundary is counted as the verdict counts it.
    losses = np.floor(most + 1e-9 * clusters)
    share = low / (low + middle) if low > 0 else 0.0
    return float(binom.pmf(gains, clusters, high) @ binom.cdf(losses, clusters - gains, share))


def _most_losses(values: Floats, worst: float, clusters: int, gains: Floats, level: float) -> Floats:
    """Most clusters of the smallest value with which each number of the largest passes; not whole, and -1 for none."""
    from scipy.special import ndtri

    weights = np.append(values, worst)

    def miss(losses: Floats) -> Floats:
        kept = np.maximum(clusters - gains - losses, 0.0)
        chance = tail_probability(weights, np.stack([losses, kept, gains, np.ones(len(gains))], axis=1))
        return np.asarray(ndtri(np.clip(chance, 1e-12, 1 - 1e-12)) - ndtri(level))

    left, right = np.zeros(len(gains)), clusters - gains
    at_left, at_right = miss(left), miss(right)
    never, always = at_left > 0, at_right <= 0
    for turn in range(40):
        wide = (right - left > 1e-6 * clusters) & ~never & ~always
        if not wide.any() or np.array_equal(np.floor(left[wide]), np.floor(right[wide])):
            break
        # Regula falsi, with halving in turn so that neither end stays.
        slope = at_left / np.where(at_left < at_right, at_left - at_right, -1.0)
        middle = left + (right - left) * np.clip(slope if turn % 3 else 0.5, 0.02, 0.98)
        found = miss(middle)
        under = found <= 0
        left, at_left = np.where(under, middle, left), np.where(under, found, at_left)
        right, at_right = np.where(under, right, middle), np.where(under, at_right, found)
    return np.where(never, -1.0, np.where(always, clusters - gains, left))

"""Rare events among many: how many may be seen at a rate, and which rate what was seen excludes."""

from __future__ import annotations

import math

MOST_OUTSIDE = 2e-3
"""Share of a parent's weights that may lie outside the cells of their codes where rounding is claimed."""
_STEPS = 50
_MANY = 1000
"""Events from which on the normal distribution stands for Poisson's."""


def allowance(share: float, count: int) -> float:
    """Events that may be seen among so many at a rate, four standard deviations included."""
    return share * count + 4 * math.sqrt(share * count) + 1


def least_rate(seen: int, chance: float) -> float:
    """Mean of a Poisson distribution that gives so few events, or fewer, with no more than this chance."""
    low, high = float(seen), seen + 60.0 + 10 * math.sqrt(seen + 1)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if at_most(seen, middle) < chance else (middle, high)
    return high


def at_most(seen: int, mean: float) -> float:
    """Probability of at most so many events; normal for many, where the sum would cost more than it tells."""
    if mean <= 0:
        return 1.0
    if seen > _MANY:
        return 0.5 * math.erfc((mean - seen - 0.5) / math.sqrt(2 * mean))
    return sum(math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) for count in range(seen + 1))

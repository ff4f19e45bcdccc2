"""Bounds for a median that hold whenever one stops: a confidence sequence, for measurements that go on until they suffice.

Bounds of a fixed sample size do not hold when they are looked at after every observation and the last look counts. Here
each hypothesis "the median is m" is bet against with signs: `above` of `count` observations exceed m, and

    M = 2 * integral from 1/2 to 1 of (2p)^above * (2(1 - p))^(count - above) dp

is a non-negative supermartingale of mean 1 at most, as long as each sign is + with probability at most 1/2 given the
past (a mixture of likelihood ratios: Robbins 1970, "Statistical methods related to the law of the iterated logarithm";
for quantiles Howard and Ramdas 2022, "Sequential estimation of quantiles"). By Ville's inequality it ever reaches 1 / level
with probability `level` at most, so the values of m at which it has not bound the median at every time, at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import comb


def median_bounds(values: Sequence[float], level: float) -> tuple[float | None, float | None]:
    """Lower and upper bound of the median of what was observed so far, each of them with error `level` over all time.

    Args:
        values: Observations in any order; at least seven give a bound at 0.05.
        level: Probability, above 0 and below 1, that a bound ever fails.

    Returns:
        The bounds, None where there are too few observations to give any.
    """
    needed = signs_needed(len(values), level)
    if needed is None:
        return None, None
    ordered = sorted(values)
    return ordered[len(ordered) - needed], ordered[needed - 1]


@cache
def signs_needed(count: int, level: float) -> int | None:
    """How many of `count` observations must exceed m for the median to be above m; None where not even all suffice."""
    wanted = 1 / Fraction(level)
    if _wealth(count, count) < wanted:
        return None
    low, high = count // 2, count  # the wealth rises with the number of signs from the middle on
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _wealth(middle, count) >= wanted else (middle, high)
    return high


def least_count(level: float) -> int:
    """Fewest observations that can bound a median."""
    return next(count for count in range(1, 10_000) if signs_needed(count, level) is not None)


def _wealth(above: int, count: int) -> Fraction:
    """M of the module's text, exactly.

    The integral of p^a (1 - p)^b over [1/2, 1] is B(a + 1, b + 1) P(Binomial(a + b + 1, 1/2) <= a), where B is the beta
    function (DLMF 8.17.5).
    """
    tail = sum(comb(count + 1, k) for k in range(above + 1))
    return Fraction(tail, (count + 1) * comb(count, above))

"""How many items a verdict takes, before anything runs; and how likely a verdict is with the items that there are."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.statistics.expected import Expected
from mlflow_quantgov.evidence.statistics.power import MOST, clusters_needed, power

POWER = 0.8
"""The usual one."""
_SAMPLES = 2000
_QUICK_SAMPLES = 500


@dataclass(frozen=True)
class Plan:
    """Items that show, with the wanted power, that no more than the margin was lost."""

    items: int
    clusters: int
    power: float
    """Chance of `pass` with that many, if things are as expected."""
    margin: float
    confidence: float
    difference: float
    """Expected mean difference, quantized minus parent."""
    lost: float
    """Expected share of items with a lower score."""
    gained: float
    cluster_size: float
    design_effect: float
    clusters_at_least: int
    """No fewer clusters ever pass at this margin, whatever is seen (for clusters of one size)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def clusters_needed_floor(margin: float, confidence: float = 0.95, span: float = 1.0) -> int:
    """Fewest independent clusters that pass where no score differs: ln(1 - confidence) / ln(1 - margin / span), rounded up."""
    if margin >= span:
        return 1
    return math.ceil(math.log(1 - confidence) / math.log1p(-margin / span))


def plan(margin: float, expected: Expected, confidence: float = 0.95, power: float = POWER) -> Plan:
    """Items and clusters needed to pass with the wanted power.

    Args:
        margin: Largest tolerated loss, above 0, in units of the score.
        expected: From `expect` (stated numbers) or `expect_as_pilot`.
        confidence: One-sided, between 0.5 and 1.
        power: Wanted chance of `pass`, above 0 and below 1.

    Raises:
        UsageError: An impossible number, or no number of items is enough: the expected loss reaches the margin.
    """
    check_level(margin, confidence)
    if not 0 < power < 1:
        raise UsageError(
            f"The power {power!r} is not between 0 and 1.", why="It is the chance of a pass.", fix="give a power of 0.8"
        )
    draw, level = expected.passing(margin), 1 - confidence
    if draw.mean <= 0:
        raise UsageError(
            f"The expected loss of {-expected.difference:g} reaches the margin {margin:g}.",
            why="No number of items shows a loss to be smaller than it is.",
            fix="expect a smaller loss, or tolerate a larger one",
        )
    clusters = clusters_needed(draw, level, power, _SAMPLES)
    if clusters >= MOST:
        raise UsageError(
            f"More than {MOST:,} clusters are needed to tell a loss of {-expected.difference:g} from {margin:g}.",
            why="That is no plan that anybody can carry out.",
            fix="expect a smaller loss, or tolerate a larger one",
        )
    items = math.ceil(round(clusters * expected.cluster_size, 6))
    return Plan(
        items=items,
        clusters=clusters,
        power=power_at(items, margin, expected, confidence),
        margin=margin,
        confidence=confidence,
        difference=expected.difference,
        lost=expected.lost,
        gained=expected.gained,
        cluster_size=expected.cluster_size,
        design_effect=expected.design_effect,
        clusters_at_least=clusters_needed_floor(margin, confidence, expected.span),
    )


def power_at(items: int, margin: float, expected: Expected, confidence: float = 0.95) -> float:
    """Chance of `pass` with so many items (in whole clusters of the expected size).

    Raises:
        UsageError: An impossible margin or confidence.
    """
    check_level(margin, confidence)
    clusters = math.floor(round(items / expected.cluster_size, 6))
    return power(expected.passing(margin), clusters, 1 - confidence, _SAMPLES)


def clusters_to_settle(margin: float, seen: Expected, confidence: float) -> int:
    """Clusters that would bring a verdict, pass or fail, with a power of 80 % if what was seen goes on; at most 10 million.

    Quicker than a plan, and to a few per cent, as it is part of every verdict that is `inconclusive`.
    """
    draw = seen.passing(margin)
    return clusters_needed(draw if draw.mean > 0 else seen.failing(margin), 1 - confidence, POWER, _QUICK_SAMPLES)


def check_level(margin: float, confidence: float) -> None:
    """Refuse an impossible margin or confidence.

    Raises:
        UsageError: It is one.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise UsageError(
            f"The margin {margin!r} is not a finite number above 0.",
            why="No finite number of items can show that nothing at all was lost.",
            fix="--margin 0.02",
        )
    if not 0.5 < confidence < 1:
        raise UsageError(
            f"The confidence {confidence!r} is not between 0.5 and 1.",
            why="It is the chance that a model at the margin is not let through.",
            fix="--confidence 0.95",
        )

"""Is the quantized side not worse than the parent by more than a margin?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.statistics.bound import Clusters, lower_bound
from mlflow_quantgov.evidence.statistics.expected import expect_as_pilot
from mlflow_quantgov.evidence.statistics.planning import check_level, clusters_to_settle
from mlflow_quantgov.evidence.statistics.power import MOST
from mlflow_quantgov.evidence.statistics.records import Score, check_scores, pair, read_scores

METHOD = "paired differences by cluster, one-sided Gaffke bounds"

Scores = str | Path | Sequence[Any] | NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """Verdict of one comparison; differences are quantized minus parent, in units of the score."""

    outcome: Literal["pass", "fail", "inconclusive"]
    estimate: float
    lower: float
    """One-sided lower bound at `confidence`."""
    upper: float
    """One-sided upper bound at `confidence`."""
    margin: float
    confidence: float
    items: int
    clusters: int
    discordant: int
    """Items whose scores differ."""
    items_needed: int | None
    """Items that would settle it with a power of 80 %, if what was seen goes on; None unless inconclusive."""
    method: str
    lost: int
    gained: int
    parent_mean: float
    quantized_mean: float
    parent_standard_error: float
    """By clusters."""
    quantized_standard_error: float
    recovery: float | None
    """Quantized mean / parent mean; None where the parent's is 0."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare(
    parent_scores: Scores,
    quantized_scores: Scores,
    margin: float = 0.02,
    confidence: float = 0.95,
    groups: Sequence[Any] | None = None,
    score_range: tuple[float, float] | None = None,
) -> Comparison:
    """Paired non-inferiority of the quantized side.

    Args:
        parent_scores: Numbers in the order of the items, records `{"id", "score", "group"?}`, or a JSONL file of them.
        quantized_scores: The same items; numbers are paired by position, records by id.
        margin: Largest tolerated loss, above 0, in units of the score.
        confidence: One-sided, between 0.5 and 1.
        groups: Cluster of each item, for numbers; None makes each item its own cluster.
        score_range: Lowest and highest score that an item can have; None takes 0 to 1, or what was seen where that is wider.

    Returns:
        `pass` where the lower bound is at or above -margin, `fail` where the upper bound is below it.

    Raises:
        UsageError: An impossible margin, confidence or range, or a file that does not exist.
        EvidenceError: Scores that are not finite, ids that do not pair or stand twice, groups that differ, scores outside
            the stated range, no items.
    """
    check_level(margin, confidence)
    low, high = score_range or (0.0, 1.0)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            f"The range of scores {low!r} to {high!r} is none.",
            why="The largest loss that one item can show follows from it.",
            fix="give the lowest and the highest score that an item can have",
        )
    pairs = pair(_scores(parent_scores, groups, "the parent"), _scores(quantized_scores, groups, "the quantized side"))
    seen = [side.score for both in pairs for side in both]
    if score_range is not None and not low <= min(seen) <= max(seen) <= high:
        raise EvidenceError(
            f"Scores lie outside {low:g} to {high:g}, from {min(seen):g} to {max(seen):g}.",
            why="A loss could be larger than the bounds reckon with.",
            fix="state the range that the scorer really has",
        )
    return _judge(pairs, margin, confidence, high - low)


def _scores(given: Scores, groups: Sequence[Any] | None, where: str) -> list[Score]:
    if isinstance(given, str | Path):
        return read_scores(given)
    values = list(given)
    if values and isinstance(values[0], Score):
        return values
    if values and isinstance(values[0], dict):
        return check_scores(values, where)
    if groups is not None and len(groups) != len(values):
        raise EvidenceError(
            f"{where} has {len(values)} scores and {len(groups)} groups.",
            why="Each item needs its own group.",
            fix="give one group per score",
        )
    records = []
    for index, value in enumerate(values):
        score = value.item() if hasattr(value, "item") else value
        records.append({"id": f"{index:07d}", "score": score, "group": None if groups is None else groups[index]})
    return check_scores(records, where)


def _judge(pairs: list[tuple[Score, Score]], margin: float, confidence: float, span: float) -> Comparison:
    parent = np.array([one.score for one, _ in pairs])
    quantized = np.array([other.score for _, other in pairs])
    names, cluster = np.unique([one.group for one, _ in pairs], return_inverse=True)
    difference = quantized - parent
    # Never less than the range of 0/1 scores: equal scores say nothing about how far they could have fallen.
    span = max(span, float(max(parent.max(), quantized.max()) - min(parent.min(), quantized.min())))
    # Rounded, so that equal clusters are equal whatever the order of their items.
    clusters = Clusters.of(np.round(np.bincount(cluster, weights=difference), 12), np.bincount(cluster).astype(float))
    estimate = math.fsum(difference) / len(pairs)
    lower = min(estimate, lower_bound(clusters, -span, confidence))
    upper = max(estimate, -lower_bound(clusters.negated(), -span, confidence))
    outcome: Literal["pass", "fail", "inconclusive"] = "inconclusive"
    if lower >= -margin:
        outcome = "pass"
    elif upper < -margin:
        outcome = "fail"
    parent_mean, quantized_mean = math.fsum(parent) / len(pairs), math.fsum(quantized) / len(pairs)
    needed = None
    if outcome == "inconclusive":
        seen = expect_as_pilot(difference, cluster, difference=None, span=span)
        more = clusters_to_settle(margin, seen, confidence)
        needed = min(MOST, max(math.ceil(round(more * len(pairs) / len(names), 6)), len(pairs) + 1))
    return Comparison(
        outcome=outcome,
        estimate=estimate,
        lower=lower,
        upper=upper,
        margin=margin,
        confidence=confidence,
        items=len(pairs),
        clusters=len(names),
        discordant=int(np.count_nonzero(difference)),
        items_needed=needed,
        method=METHOD,
        lost=int(np.count_nonzero(difference < 0)),
        gained=int(np.count_nonzero(difference > 0)),
        parent_mean=parent_mean,
        quantized_mean=quantized_mean,
        parent_standard_error=_standard_error(parent, cluster, len(names)),
        quantized_standard_error=_standard_error(quantized, cluster, len(names)),
        recovery=quantized_mean / parent_mean if parent_mean else None,
    )


def _standard_error(scores: NDArray[np.float64], cluster: NDArray[np.int64], clusters: int) -> float:
    """Standard error of a mean over clustered items (sandwich form, with clusters / (clusters - 1))."""
    if clusters < 2:
        return float("inf") if scores.std() else 0.0
    sums = np.bincount(cluster, weights=scores - scores.mean())
    # Rounded, so that the last digits do not depend on the order of the items.
    return round(math.sqrt(clusters / (clusters - 1) * math.fsum(sums**2)) / len(scores), 12)

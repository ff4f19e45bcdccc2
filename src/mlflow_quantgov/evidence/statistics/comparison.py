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
from mlflow_quantgov.evidence.statistics.bound import lower_mean_bound
from mlflow_quantgov.evidence.statistics.records import Score, check_scores, pair, read_scores

METHOD = "paired differences by cluster, one-sided Gaffke bounds"
POWER = 0.8
MAX_NEEDED = 10_000_000

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


def clusters_needed_floor(margin: float, confidence: float = 0.95) -> int:
    """Fewest independent clusters that can ever pass: ln(1 - confidence) / ln(1 - margin), rounded up."""
    if margin >= 1:
        return 1
    return math.ceil(math.log(1 - confidence) / math.log1p(-margin))


def compare(
    parent_scores: Scores,
    quantized_scores: Scores,
    margin: float = 0.02,
    confidence: float = 0.95,
    groups: Sequence[Any] | None = None,
) -> Comparison:
    """Paired non-inferiority of the quantized side.

    Args:
        parent_scores: Numbers in the order of the items, records `{"id", "score", "group"?}`, or a JSONL file of them.
        quantized_scores: The same items; numbers are paired by position, records by id.
        margin: Largest tolerated loss, above 0, in units of the score.
        confidence: One-sided, between 0.5 and 1.
        groups: Cluster of each item, for numbers; None makes each item its own cluster.

    Returns:
        `pass` where the lower bound is at or above -margin, `fail` where the upper bound is below it.

    Raises:
        UsageError: An impossible margin or confidence, or a file that does not exist.
        EvidenceError: Scores that are not finite, ids that do not pair or stand twice, groups that differ, no items.
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
    pairs = pair(_scores(parent_scores, groups, "the parent"), _scores(quantized_scores, groups, "the quantized side"))
    return _judge(pairs, margin, confidence)


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


def _judge(pairs: list[tuple[Score, Score]], margin: float, confidence: float) -> Comparison:
    parent = np.array([one.score for one, _ in pairs])
    quantized = np.array([other.score for _, other in pairs])
    names, cluster = np.unique([one.group for one, _ in pairs], return_inverse=True)
    difference = quantized - parent
    sizes = np.bincount(cluster)
    # One number per cluster whose plain mean is the mean over items: total, times clusters per item.
    scale = len(names) / len(pairs)
    totals = np.round(np.bincount(cluster, weights=difference) * scale, 12)
    span = _span(parent, quantized) * float(sizes.max()) * scale
    estimate = math.fsum(difference) / len(pairs)
    lower = min(estimate, lower_mean_bound(totals, min(-span, float(totals.min())), confidence))
    upper = max(estimate, -lower_mean_bound(-totals, min(-span, float((-totals).min())), confidence))
    outcome: Literal["pass", "fail", "inconclusive"] = "inconclusive"
    if lower >= -margin:
        outcome = "pass"
    elif upper < -margin:
        outcome = "fail"
    parent_mean, quantized_mean = math.fsum(parent) / len(pairs), math.fsum(quantized) / len(pairs)
    needed = (
        _items_needed(totals, margin, confidence, span) * len(pairs) / len(names) if outcome == "inconclusive" else None
    )
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
        items_needed=None if needed is None else min(MAX_NEEDED, max(math.ceil(needed), len(pairs) + 1)),
        method=METHOD,
        lost=int(np.count_nonzero(difference < 0)),
        gained=int(np.count_nonzero(difference > 0)),
        parent_mean=parent_mean,
        quantized_mean=quantized_mean,
        parent_standard_error=_standard_error(parent, cluster, len(names)),
        quantized_standard_error=_standard_error(quantized, cluster, len(names)),
        recovery=quantized_mean / parent_mean if parent_mean else None,
    )


def _span(parent: NDArray[np.float64], quantized: NDArray[np.float64]) -> float:
    """Largest loss that one item can show: 1, or the range that was seen where that is wider.

    Never less than 1: equal scores say nothing about how far they could have fallen.
    """
    low, high = min(parent.min(), quantized.min()), max(parent.max(), quantized.max())
    return max(1.0, float(high - low))


def _items_needed(totals: NDArray[np.float64], margin: float, confidence: float, span: float) -> float:
    """Clusters that would settle it: normal approximation, plus the width that one unseen worst cluster costs.

    n = ((z_confidence + z_power) s / (margin + estimate))^2, where s includes one worst cluster that was not seen.
    """
    from scipy.stats import norm

    seen = np.append(totals, -span)
    spread = float(seen.std())
    distance = max(abs(margin + float(totals.mean())), 1e-6)
    factor = float(norm.ppf(confidence) + norm.ppf(POWER))
    return max(
        (factor * spread / distance) ** 2 + span / distance, clusters_needed_floor(min(margin / span, 1), confidence)
    )


def _standard_error(scores: NDArray[np.float64], cluster: NDArray[np.int64], clusters: int) -> float:
    """Standard error of a mean over clustered items (sandwich form, with clusters / (clusters - 1))."""
    if clusters < 2:
        return float("inf") if scores.std() else 0.0
    sums = np.bincount(cluster, weights=scores - scores.mean())
    # Rounded, so that the last digits do not depend on the order of the items.
    return round(math.sqrt(clusters / (clusters - 1) * math.fsum(sums**2)) / len(scores), 12)

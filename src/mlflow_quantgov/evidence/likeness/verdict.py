"""Verdict of one test of likeness, and of all together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlflow_quantgov.evidence.likeness import area, discrepancy

Statistic = Literal["area-under-curve", "squared-discrepancy"]

SURFACE = "surface"
MEANING = "meaning"
CLASSIFIER = "classifier"
PHRASES = "phrases"
ACTIVATIONS = "activations"
CONFIDENCE = 0.95
MIN_DOCUMENTS = 20
"""Documents per side below which nothing passes."""
COPIES = 0.3
"""A classifier that is reliably worse than this points at near copies on both sides, which tell nothing."""
MAX_NEEDED = 100_000


@dataclass(frozen=True)
class Standard:
    """What a test measures, and what it may at most show."""

    statistic: Statistic
    threshold: float
    words: str
    """What the estimate says, for people."""
    either_way: bool = False
    """Whether an area under the curve counts from a half on towards both ends."""


STANDARDS: Mapping[str, Standard] = {
    SURFACE: Standard("squared-discrepancy", 0.2, "lengths, words, letters and signs"),
    MEANING: Standard("squared-discrepancy", 0.05, "what the documents are about"),
    CLASSIFIER: Standard("area-under-curve", 0.75, "a classifier that sees all of this"),
    PHRASES: Standard("area-under-curve", 0.75, "words in production's order, and none of its copies", either_way=True),
    ACTIVATIONS: Standard("squared-discrepancy", 0.04, "what the parent's layers see"),
}
"""Nobody can state a looser threshold. A squared discrepancy is a share of production's own spread."""
TEXT_TESTS = (SURFACE, MEANING, CLASSIFIER, PHRASES)
"""Tests that a pass needs; the activations are added where the policy asks for them."""


def judge(
    name: str,
    calibration: Sequence[float],
    production: Sequence[float],
    threshold: float = math.inf,
    *,
    statistic: Statistic = "area-under-curve",
    family: int = 1,
    concentration: tuple[float, float] = (1.0, 1.0),
) -> dict[str, Any]:
    """Judge one test of likeness from its per-document scores.

    Passes where the upper bound of the distance lies under the threshold, fails where the lower bound lies over it. The
    lower bound shares its error with the other tests (Bonferroni), so that alike samples fail in at most 5 % of the cases
    over all tests together; the upper bound need not, since all tests must pass.

    Args:
        name: Name of the test.
        calibration: One finite score per calibration document.
        production: One finite score per production document.
        threshold: Largest tolerated distance; the standard's where that is smaller.
        statistic: How the scores become a distance, for a name without a standard.
        family: How many tests are judged together.
        concentration: Of a squared discrepancy, as `discrepancy.bounds` takes it; all along one direction is the worst.

    Returns:
        `name`, `statistic`, `estimate`, `lower`, `upper`, `threshold`, `outcome`, `documents_needed` (of each side, where
        inconclusive and a number would settle it; else None).
    """
    standard = STANDARDS.get(name)
    statistic = standard.statistic if standard else statistic
    strictest = min(one.threshold for one in STANDARDS.values() if one.statistic == statistic)
    applied = min(float(threshold), standard.threshold if standard else strictest)
    documents = min(len(calibration), len(production))
    if standard and standard.either_way and area.area_under_curve(calibration, production) < 0.5:
        calibration, production = production, calibration
    estimate, lower, upper = _interval(statistic, calibration, production, concentration, 1 - (1 - CONFIDENCE) / family)
    outcome = "inconclusive"
    copies = statistic == "area-under-curve" and upper < COPIES
    if lower > applied:
        outcome = "fail"
    elif upper < applied and not copies and documents >= MIN_DOCUMENTS:
        outcome = "pass"
    needed = _needed(estimate, lower, upper, applied, documents) if outcome == "inconclusive" and not copies else None
    return {
        "name": name,
        "statistic": statistic,
        "estimate": estimate,
        "lower": lower,
        "upper": upper,
        "threshold": applied,
        "outcome": outcome,
        "documents_needed": needed,
    }


def overall(tests: Iterable[Mapping[str, Any]], required: Iterable[str] = TEXT_TESTS) -> str:
    """`fail` where one test fails, `pass` where all pass and none is lacking, else `inconclusive`."""
    outcomes = {str(test["name"]): test["outcome"] for test in tests}
    if "fail" in outcomes.values():
        return "fail"
    if set(outcomes.values()) <= {"pass"} and set(required) <= outcomes.keys():
        return "pass"
    return "inconclusive"


def _interval(
    statistic: Statistic,
    calibration: Sequence[float],
    production: Sequence[float],
    concentration: tuple[float, float],
    confidence: float,
) -> tuple[float, float, float]:
    """Estimate, lower bound at `confidence`, upper bound at `CONFIDENCE`."""
    from scipy.stats import norm

    sizes = len(calibration), len(production)
    documents = min(sizes)
    if statistic == "area-under-curve":
        estimate = area.area_under_curve(calibration, production)
        lower, _ = area.bounds(estimate, documents, float(norm.ppf(confidence)))
        _, upper = area.bounds(estimate, documents, float(norm.ppf(CONFIDENCE)))
        return estimate, lower, upper
    if documents < 4:
        # Half of so few holds one document, whose spread nobody knows: any finite bound would be made up.
        widest = max(abs(one) for one in (*calibration, *production)) + 1.0
        return 0.0, -widest, widest
    estimate, error = discrepancy.estimate_and_error(calibration, production)
    lower, _ = discrepancy.bounds(estimate, error, sizes, concentration, confidence)
    _, upper = discrepancy.bounds(estimate, error, sizes, concentration, CONFIDENCE)
    return estimate, lower, upper


def _needed(estimate: float, lower: float, upper: float, threshold: float, documents: int) -> int | None:
    """Documents of each side at which a width that shrinks with their root would clear the threshold, if the estimate stays."""
    gap, half = (
        (threshold - estimate, upper - estimate) if estimate < threshold else (estimate - threshold, estimate - lower)
    )
    if gap <= 0 or half <= 0:
        return None
    times = min(half / gap, math.sqrt(MAX_NEEDED)) ** 2
    return max(min(MAX_NEEDED, math.ceil(documents * times)), documents + 1, MIN_DOCUMENTS)

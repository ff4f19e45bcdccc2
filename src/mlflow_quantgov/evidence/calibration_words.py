"""What an assessment of calibration data says, in words."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.evidence.likeness import MIN_DOCUMENTS, PHRASES, TEXT_TESTS, area_under_curve, overall
from mlflow_quantgov.evidence.predicates.calibration import Calibration

FEWEST = 4
"""Documents of each side below which nothing is computed."""
MOST_CHARACTERS = 20_000
"""Characters of a document that are looked at."""


def reason(found: Calibration) -> str:
    """Why an assessment came out as it did, in one or two sentences; for the command, and for a gate that refuses.

    Args:
        found: An assessment, made here or stated by somebody.
    """
    if found.generic_set:
        return f"The calibration data is the generic set {found.generic_set}, which no production sends."
    if found.leaked_documents:
        return f"{found.leaked_documents} calibration documents are also evaluation items."
    if found.shared_with_production:
        return f"{found.shared_with_production} calibration documents are also in the production sample."
    if not found.summary["tests"]:
        return (
            f"Not measured: likeness needs a production sample and at least {FEWEST} different documents on each side."
        )
    if found.unseen and overall(found.summary["tests"]) == "pass":
        return (
            f"{found.unseen:.0%} of the calibration text was not compared: it is copies of a few documents, or lies beyond the "
            f"first {MOST_CHARACTERS:,} characters of one. Keep each document once, and cut long ones into documents."
        )
    return " ".join(sentence for sentence in (_verdict(found), _lacking(found)) if sentence)


def _verdict(found: Calibration) -> str:
    """What the deciding test says: the first that fails, else the first that is inconclusive, else all."""
    tests = found.summary["tests"]
    for outcome in ("fail", "inconclusive"):
        one = next((test for test in tests if test["outcome"] == outcome), None)
        if one is not None:
            return _of_test(one, found)
    layers = ", by what the parent's layers see" if found.layers else ""
    return f"By lengths and words, by meaning, by phrases{layers} and to a classifier, calibration and production are alike."


def _of_test(test: dict[str, Any], found: Calibration) -> str:
    if test["name"] == PHRASES:
        said = _of_phrases(test, found)
    elif test["statistic"] == "area-under-curve":
        share = f"in {test['estimate']:.0%} of pairs (at most {test['threshold']:.0%} is accepted)"
        if test["outcome"] == "inconclusive" and test["documents_needed"] is None:
            return "The two files seem to hold near copies of the same documents, which proves nothing."
        said = f"A classifier tells the two apart {share}"
    else:
        words = {"surface": "By lengths, words and signs", "meaning": "By what they are about"}
        where = words.get(test["name"], "By what the parent's layers see")
        said = f"{where}, the two lie {max(test['estimate'], 0.0):.1%} of production's own spread apart (at most {test['threshold']:.0%} is accepted)"
    if test["outcome"] == "fail" and test["name"] == PHRASES:
        return f"{said}."
    if test["outcome"] == "fail":
        return f"{said}{_differs(found)}."
    few = min(len(one.calibration) for one in found.likeness) < MIN_DOCUMENTS
    needed = test["documents_needed"]
    more = (
        f"at least {MIN_DOCUMENTS} documents on each side, better a few hundred"
        if few
        else f"about {needed:,} documents on each side would"
    )
    return f"{said}, which does not settle it: {more}{'' if few else ' settle it'}."


def _differs(found: Calibration) -> str:
    """In which feature of the surface they differ most; a statement from elsewhere may hold anything there, or nothing."""
    for one in found.most_different[:1]:
        name, *sides = (one.get(key) for key in ("feature", "calibration", "production"))
        if isinstance(name, str) and all(isinstance(side, int | float) for side in sides):
            numbers = " against ".join(f"{side:.3g}" for side in sides)
            return f"; their surface differs most in {name[:100]}, {numbers}"
    return ""


def _of_phrases(test: dict[str, Any], found: Calibration) -> str:
    scores = next(one for one in found.likeness if one.name == PHRASES)
    share = f"(told apart in {test['estimate']:.0%} of pairs; at most {test['threshold']:.0%} is accepted)"
    if area_under_curve(scores.calibration, scores.production) > 0.5:
        return f"The calibration documents repeat production's phrases more than production itself does, as copies do {share}"
    return f"The calibration documents put production's words in another order than production does {share}"


def _lacking(found: Calibration) -> str:
    lacking = [name for name in TEXT_TESTS if name not in {test["name"] for test in found.summary["tests"]}]
    if not lacking:
        return ""
    return f"Not measured: {', '.join(lacking)} (pip install 'mlflow-quantgov[calibration]')."

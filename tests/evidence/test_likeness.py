"""The verdict of likeness: recomputable, never looser than the standard, never passing on too little."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlflow_quantgov.evidence.likeness import (
    CLASSIFIER,
    MIN_DOCUMENTS,
    PHRASES,
    STANDARDS,
    SURFACE,
    TEXT_TESTS,
    area_under_curve,
    judge,
    overall,
)
from mlflow_quantgov.evidence.likeness.area import bounds
from mlflow_quantgov.evidence.likeness.discrepancy import estimate_and_error, halves

scores = st.lists(st.floats(0, 1), min_size=1, max_size=40)
names = st.sampled_from(sorted(STANDARDS))
Z = 1.6448536269514722


@given(scores, scores)
def test_the_area_is_the_share_of_ordered_pairs(left: list[float], right: list[float]) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in left for b in right]
    assert math.isclose(area_under_curve(left, right), sum(pairs) / len(pairs), abs_tol=1e-12)


@given(scores, scores, st.integers(0, 10**6))
def test_order_and_swapping_sides_of_a_classifier(left: list[float], right: list[float], seed: int) -> None:
    found = judge(CLASSIFIER, left, right)
    shuffled = random.Random(seed).sample(left, len(left))
    assert judge(CLASSIFIER, shuffled, right) == found
    assert math.isclose(judge(CLASSIFIER, right, left)["estimate"], 1 - found["estimate"], abs_tol=1e-12)


@given(names, scores, scores, st.floats(-2, 2), st.integers(1, 8))
def test_bounds_enclose_the_estimate_and_no_threshold_is_looser_than_the_standard(
    name: str, left: list[float], right: list[float], stated: float, family: int
) -> None:
    found = judge(name, left, right, stated, family=family)
    assert found["lower"] <= found["estimate"] <= found["upper"]
    assert found["threshold"] <= STANDARDS[name].threshold
    if found["outcome"] == "pass":
        assert found["upper"] < min(stated, STANDARDS[name].threshold)
        assert min(len(left), len(right)) >= MIN_DOCUMENTS
    if found["outcome"] == "fail":
        assert found["lower"] > found["threshold"]
    if found["documents_needed"] is not None:
        assert found["outcome"] == "inconclusive" and found["documents_needed"] > min(len(left), len(right))


@given(names, scores, scores)
def test_more_tests_in_a_family_only_make_failing_harder(name: str, left: list[float], right: list[float]) -> None:
    alone, among = judge(name, left, right), judge(name, left, right, family=4)
    assert among["lower"] <= alone["lower"] and among["upper"] == alone["upper"]


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_bounds_of_an_area_solve_their_equation(estimate: float, documents: int) -> None:
    for bound in bounds(estimate, documents, Z):
        if 0 < bound < 1:
            gap = Z**2 * bound * (1 - bound) / documents
            assert math.isclose((estimate - bound) ** 2, gap, rel_tol=1e-6, abs_tol=1e-12)


def test_an_unknown_test_gets_the_strictest_threshold_of_its_kind() -> None:
    strictest = judge("theirs", [0.5], [0.5], 9.0, statistic="squared-discrepancy")
    assert strictest["threshold"] == min(
        one.threshold for one in STANDARDS.values() if one.statistic == "squared-discrepancy"
    )


@pytest.mark.parametrize("documents", [1, 2, 3, 4, MIN_DOCUMENTS - 1])
@pytest.mark.parametrize("name", sorted(STANDARDS))
def test_too_few_documents_never_pass(name: str, documents: int) -> None:
    assert judge(name, [0.0] * documents, [1.0] * documents)["outcome"] != "pass"
    assert judge(name, [0.5] * documents, [0.5] * documents)["outcome"] != "pass"


def test_complete_separation_keeps_a_width() -> None:
    found = judge(CLASSIFIER, [1.0] * 50, [0.0] * 50)
    assert found["estimate"] == 1.0
    assert STANDARDS[CLASSIFIER].threshold < found["lower"] < 1.0


def test_near_copies_do_not_pass() -> None:
    """A classifier that is reliably wrong has seen the same documents with the other label."""
    found = judge(CLASSIFIER, [0.0] * 200, [1.0] * 200)
    assert (found["outcome"], found["documents_needed"]) == ("inconclusive", None)


@given(scores, scores)
def test_phrases_count_both_ways(left: list[float], right: list[float]) -> None:
    """Fewer familiar phrases are another order of words, more are copies: both lie apart."""
    one, other = judge(PHRASES, left, right), judge(PHRASES, right, left)
    assert one["estimate"] >= 0.5 and one["estimate"] == pytest.approx(other["estimate"])
    assert one["outcome"] == other["outcome"]


def test_all_tests_together() -> None:
    passed = [{"name": name, "outcome": "pass"} for name in TEXT_TESTS]
    assert overall(passed) == "pass"
    assert overall(passed[:2]) == overall([]) == "inconclusive"
    assert overall(passed, required=("activations",)) == "inconclusive"
    assert overall([*passed[:2], {"name": CLASSIFIER, "outcome": "fail"}]) == "fail"
    assert overall([*passed, {"name": "theirs", "outcome": "inconclusive"}]) == "inconclusive"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_coverage_where_the_area_is_at_the_threshold(seed: int) -> None:
    """At an area equal to the threshold, passing must be rare: at most 5 % of draws, here 300 of them."""
    rng = np.random.default_rng(seed)
    shift = 0.9539  # two unit normals that far apart have an area of 0.75
    passes = sum(
        judge(CLASSIFIER, rng.normal(shift, 1, 60).tolist(), rng.normal(0, 1, 60).tolist())["outcome"] == "pass"
        for _ in range(300)
    )
    assert passes <= 0.05 * 300 + 3 * math.sqrt(0.05 * 0.95 * 300)


def linear_witness(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Scores by the other half's mean difference: the kernel is the inner product."""
    left, right = np.empty(len(x)), np.empty(len(y))
    for mine, other in ((0, 1), (1, 0)):
        told = x[halves(len(x))[other]].mean(axis=0) - y[halves(len(y))[other]].mean(axis=0)
        left[halves(len(x))[mine]] = x[halves(len(x))[mine]] @ told
        right[halves(len(y))[mine]] = y[halves(len(y))[mine]] @ told
    return left.tolist(), right.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [1, 7, 100])
@pytest.mark.parametrize("documents", [(20, 20), (50, 50), (40, 300), (200, 200)])
def test_coverage_where_the_discrepancy_is_at_the_threshold(documents: tuple[int, int], dimensions: int) -> None:
    """Passing at the threshold, and failing at it, each in at most 5 % of draws (and Monte-Carlo error), whatever the sizes."""
    rng = np.random.default_rng(documents[0] * 1000 + dimensions)
    # Spread of production is 1, so a shift by the root of the threshold is a squared discrepancy at it.
    shift = np.zeros(dimensions)
    shift[0] = math.sqrt(STANDARDS[SURFACE].threshold)
    draws, outcomes, errors = 400, [], []
    for _ in range(draws):
        x = rng.normal(size=(documents[0], dimensions)) / math.sqrt(dimensions) + shift
        y = rng.normal(size=(documents[1], dimensions)) / math.sqrt(dimensions)
        sides = linear_witness(x, y)
        outcomes.append(judge(SURFACE, *sides, concentration=(1 / dimensions, 1 / dimensions))["outcome"])
        errors.append(estimate_and_error(*sides)[0] - STANDARDS[SURFACE].threshold)
    allowed = 0.05 * draws + 3.5 * math.sqrt(0.05 * 0.95 * draws)
    assert outcomes.count("pass") <= allowed and outcomes.count("fail") <= allowed
    assert abs(np.mean(errors)) < 4 * np.std(errors) / math.sqrt(draws)  # unbiased

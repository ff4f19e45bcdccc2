"""The verdict of likeness: recomputable, never looser than the standard, never passing on too little."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_quantgov.evidence.likeness import MIN_DOCUMENTS, THRESHOLD, area_under_curve, bounds, judge
from mlflow_quantgov.evidence.measure.calibration_features import most_different, out_of_fold_scores, sample

scores = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(scores, scores)
def test_the_area_is_the_share_of_ordered_pairs(left: list[float], right: list[float]) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in left for b in right]
    assert math.isclose(area_under_curve(left, right), sum(pairs) / len(pairs), abs_tol=1e-12)


@given(scores, scores, st.integers(0, 10**6))
def test_order_and_swapping_sides(left: list[float], right: list[float], seed: int) -> None:
    found = judge("t", left, right)
    shuffled = random.Random(seed).sample(left, len(left))
    assert judge("t", shuffled, right) == found
    assert math.isclose(judge("t", right, left)["estimate"], 1 - found["estimate"], abs_tol=1e-12)
    assert 0 <= found["lower"] <= found["estimate"] <= found["upper"] <= 1


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_bounds_solve_their_equation(estimate: float, documents: int) -> None:
    for bound in bounds(estimate, documents):
        if 0 < bound < 1:
            gap = 1.6448536269514722**2 * bound * (1 - bound) / documents
            assert math.isclose((estimate - bound) ** 2, gap, rel_tol=1e-6, abs_tol=1e-12)


@given(scores, scores, st.floats(-2, 2))
def test_no_stated_threshold_is_looser_than_the_standard(left: list[float], right: list[float], stated: float) -> None:
    found = judge("t", left, right, stated)
    assert found["threshold"] <= THRESHOLD
    if found["outcome"] == "pass":
        assert found["upper"] < min(stated, THRESHOLD)
        assert min(len(left), len(right)) >= MIN_DOCUMENTS
    if found["outcome"] == "fail":
        assert found["lower"] > min(stated, THRESHOLD)


@pytest.mark.parametrize("documents", [1, 3, MIN_DOCUMENTS - 1])
def test_too_few_documents_never_pass(documents: int) -> None:
    assert judge("t", [0.0] * documents, [1.0] * documents)["outcome"] != "pass"
    assert judge("t", [0.5] * documents, [0.5] * documents)["outcome"] != "pass"


def test_complete_separation_keeps_a_width() -> None:
    found = judge("t", [1.0] * 50, [0.0] * 50)
    assert found["estimate"] == 1.0
    assert THRESHOLD < found["lower"] < 1.0


def test_near_copies_do_not_pass() -> None:
    """A classifier that is reliably wrong has seen the same documents with the other label."""
    assert judge("t", [0.0] * 200, [1.0] * 200)["outcome"] == "inconclusive"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_coverage_where_the_truth_is_at_the_threshold(seed: int) -> None:
    """At an area equal to the threshold, passing must be rare: at most 5 % of draws, here 300 of them."""
    rng = np.random.default_rng(seed)
    shift = 0.7416  # two unit normals that far apart have an area of 0.70
    passes = sum(
        judge("t", rng.normal(shift, 1, 60).tolist(), rng.normal(0, 1, 60).tolist())["outcome"] == "pass"
        for _ in range(300)
    )
    assert passes <= 0.05 * 300 + 3 * math.sqrt(0.05 * 0.95 * 300)


@pytest.mark.parametrize("documents", [100, 200])
def test_halves_of_one_domain_pass(python_texts: list[str], support_texts: list[str], documents: int) -> None:
    for texts in (python_texts, support_texts):
        left, right = texts[:documents], texts[documents : 2 * documents]
        found = judge("t", *out_of_fold_scores(left, right))
        assert found["outcome"] == "pass", found


@pytest.mark.parametrize("documents", [40, 100, 200])
def test_different_domains_fail(python_texts: list[str], support_texts: list[str], documents: int) -> None:
    found = judge("t", *out_of_fold_scores(python_texts[:documents], support_texts[:documents]))
    assert found["outcome"] == "fail"


def test_a_half_foreign_mixture_does_not_pass(python_texts: list[str], support_texts: list[str]) -> None:
    mixed = python_texts[:75] + support_texts[:75]
    assert judge("t", *out_of_fold_scores(mixed, python_texts[75:225]))["outcome"] != "pass"


def test_scores_are_the_same_each_time(python_texts: list[str], support_texts: list[str]) -> None:
    left, right = python_texts[:30], support_texts[:25]
    found = out_of_fold_scores(left, right)
    assert found == out_of_fold_scores(left, right)
    assert (len(found[0]), len(found[1])) == (30, 25)


def test_order_and_copies_do_not_change_the_sample(python_texts: list[str]) -> None:
    texts = python_texts[:20]
    assert sample(texts) == sample([*reversed(texts), *texts])


def test_the_surface_that_differs_most_comes_first() -> None:
    found = most_different(["SHOUTED WORDS IN A ROW"] * 5, ["quiet words in a row"] * 5)
    assert found[0]["feature"] == "share of upper case"
    assert found[0]["calibration"] > 0.5 > found[0]["production"]

"""The views of likeness on real texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.evidence.likeness import CLASSIFIER, MEANING, PHRASES, SURFACE, overall
from mlflow_quantgov.evidence.measure.calibration.embedding import embed
from mlflow_quantgov.evidence.measure.calibration.sampling import sample
from mlflow_quantgov.evidence.measure.calibration.surface import most_different
from mlflow_quantgov.evidence.measure.calibration.views import compare_texts
from mlflow_quantgov.evidence.measure.calibration.witness import witness


def judged(calibration: Sequence[str], production: Sequence[str]) -> list[dict[str, Any]]:
    found = compare_texts(sample(calibration), sample(production))
    return [one.judged(len(found)) for one in found]


@pytest.mark.parametrize("documents", [50, 100, 200])
def test_halves_of_one_domain_pass(python_texts: list[str], support_texts: list[str], documents: int) -> None:
    for texts in (python_texts, support_texts):
        found = judged(texts[:documents], texts[documents : 2 * documents])
        assert [test["name"] for test in found] == [SURFACE, MEANING, CLASSIFIER, PHRASES]
        assert overall(found) == "pass", found


@pytest.mark.parametrize("documents", [50, 100, 200])
def test_different_domains_fail(python_texts: list[str], support_texts: list[str], documents: int) -> None:
    for left, right in ((python_texts, support_texts), (support_texts, python_texts)):
        assert overall(judged(left[:documents], right[:documents])) == "fail"


def test_a_half_foreign_mixture_does_not_pass(python_texts: list[str], support_texts: list[str]) -> None:
    mixed = python_texts[:75] + support_texts[:75]
    assert overall(judged(mixed, python_texts[75:225])) != "pass"
    assert overall(judged(python_texts[75:225], mixed)) != "pass"


@pytest.mark.parametrize("documents", [4, 8, 12, 19])
def test_few_documents_neither_pass_nor_fail_where_they_are_alike(python_texts: list[str], documents: int) -> None:
    for start in range(0, 160, 2 * documents):
        left, right = python_texts[start : start + documents], python_texts[start + documents : start + 2 * documents]
        assert overall(judged(left, right)) == "inconclusive"


def test_scores_are_the_same_each_time_and_in_any_order(python_texts: list[str], support_texts: list[str]) -> None:
    left, right = python_texts[:30], support_texts[:25]
    found = compare_texts(sample(left), sample(right))
    assert found == compare_texts(sample(left[::-1]), sample([*right[::-1], *right]))
    assert {(len(one.calibration), len(one.production)) for one in found} == {(30, 25)}


def test_what_lies_apart_is_not_chance(python_texts: list[str], support_texts: list[str]) -> None:
    apart, alike = (compare_texts(sample(python_texts[:60]), sample(other)) for other in (support_texts[:60], python_texts[60:120]))  # fmt: skip
    assert apart[0].chance == apart[1].chance == pytest.approx(1 / 201)
    assert alike[0].chance is not None and alike[0].chance > 0.01
    assert alike[1].itself is not None and abs(alike[1].itself) < 0.01


def test_documents_that_are_all_alike_are_no_distance_apart() -> None:
    same = np.ones((10, 3))
    found = witness(same, same)
    assert set(found.calibration) == set(found.production) == {0.0}
    assert max(witness(same + 1, same).calibration) > 100  # of a spread that is next to nothing


def test_embeddings_know_what_is_meant() -> None:
    cat, dog, tax, empty = embed(
        ["The cat and its kittens purr.", "Puppies and dogs bark.", "Pay your income tax.", ""]
    )
    assert cat @ dog > cat @ tax and np.linalg.norm(cat) == pytest.approx(1, abs=1e-3)
    assert not empty.any()


def test_order_and_copies_do_not_change_the_sample(python_texts: list[str]) -> None:
    texts = python_texts[:20]
    assert sample(texts) == sample([*reversed(texts), *texts])


def test_the_surface_that_differs_most_comes_first() -> None:
    found = most_different(["SHOUTED WORDS IN A ROW"] * 5, ["quiet words in a row"] * 5)
    assert found[0]["feature"] == "share of upper case"
    assert found[0]["calibration"] > 0.5 > found[0]["production"]

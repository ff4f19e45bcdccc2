"""Not worse: exact size, known bounds, invariances, and bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import beta

from mlflow_quantgov.errors import EvidenceError, QuantgovError, UsageError
from mlflow_quantgov.evidence.statistics import clusters_needed_floor, compare, lower_mean_bound

CONFIDENCE = 0.95


def exact_false_pass_rate(items: int, margin: float, gains: float) -> float:
    """P(pass) when the true loss is exactly the margin and an item is gained with probability `gains`.

    Enumerates every (lost, gained), so there is no Monte-Carlo error.
    """
    losses, rate, lost = gains + margin, 0.0, 0
    for gained in range(items + 1):
        while lost + gained <= items and _passes(items, lost, gained, margin):
            lost += 1
        counts = np.arange(0, min(lost, items - gained + 1))
        if gains == 0 and gained > 0:
            break
        with np.errstate(divide="ignore"):
            logs = (
                gammaln(items + 1) - gammaln(counts + 1) - gammaln(gained + 1) - gammaln(items - counts - gained + 1)
                + counts * np.log(losses) + (gained * np.log(gains) if gained else 0.0)
                + (items - counts - gained) * np.log(1 - losses - gains)
            )  # fmt: skip
        rate += float(np.exp(logs).sum())
        if gained > items * (gains + 8 * math.sqrt((gains + 1e-3) / items)):
            break
    return rate


def _passes(items: int, lost: int, gained: int, margin: float) -> bool:
    values = np.r_[-np.ones(lost), np.zeros(items - lost - gained), np.ones(gained)]
    return lower_mean_bound(values, -1.0, CONFIDENCE) >= -margin


@pytest.mark.parametrize(("items", "margin"), [(60, 0.05), (100, 0.1), (135, 0.02), (200, 0.02), (150, 0.1)])
@pytest.mark.parametrize("gains", [0.0, 0.005, 0.02, 0.1, 0.28])
def test_false_pass_rate_at_the_margin_is_at_most_five_percent(items: int, margin: float, gains: float) -> None:
    assert exact_false_pass_rate(items, margin, gains) <= 0.05


@pytest.mark.parametrize(("clusters", "size"), [(8, 30), (30, 10), (100, 5)])
def test_few_clusters_that_fall_whole_do_not_pass(clusters: int, size: int) -> None:
    # Each cluster falls whole with probability `margin`, so the true loss is exactly the margin.
    margin, passed, rounds = 0.05, 0, 400
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(clusters), size)
    for _ in range(rounds):
        fallen = generator.random(clusters) < margin
        passed += compare(np.ones(clusters * size), 1.0 - fallen[groups], margin, groups=groups).outcome == "pass"
    # Two standard errors of Monte-Carlo error above 5 %.
    assert passed / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


def test_rare_large_losses_of_real_valued_scores_do_not_pass() -> None:
    generator, passed, rounds = np.random.default_rng(2), 0, 200
    for _ in range(rounds):
        parent = generator.uniform(0.8, 1.0, 150)
        quantized = np.where(generator.random(150) < 0.02 / 0.9, 0.0, parent)
        passed += compare(parent, quantized, margin=0.02).outcome == "pass"
    assert passed / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


def test_power_is_there_when_nothing_was_lost() -> None:
    generator, passed, rounds = np.random.default_rng(3), 0, 60
    for _ in range(rounds):
        parent = (generator.random(1500) < 0.7).astype(float)
        flips = generator.random(1500) < 0.05
        passed += compare(parent, np.where(flips, 1 - parent, parent), margin=0.05).outcome == "pass"
    assert passed / rounds > 0.9


@pytest.mark.parametrize(("successes", "items"), [(0, 10), (3, 20), (149, 149), (70, 100)])
def test_bound_of_binary_values_is_clopper_pearson(successes: int, items: int) -> None:
    values = np.r_[np.ones(successes), np.zeros(items - successes)]
    expected = float(beta.ppf(0.05, successes, items - successes + 1)) if successes else 0.0
    found = lower_mean_bound(values, 0.0, CONFIDENCE)
    # Computed to the safe side: never above the exact bound, and hardly below it.
    assert expected - 5e-5 <= found <= expected + 1e-12


def test_identical_scores_keep_a_width_and_need_149_items_at_two_points() -> None:
    assert clusters_needed_floor(0.02) == 149
    assert clusters_needed_floor(0.05) == 59
    assert compare(np.ones(149), np.ones(149), 0.02).outcome == "pass"
    few = compare(np.ones(148), np.ones(148), 0.02)
    assert few.outcome == "inconclusive"
    assert few.items_needed is not None and few.items_needed >= 149


def test_a_clear_loss_fails_and_flips_are_counted() -> None:
    found = compare([1] * 80 + [0] * 20, [1] * 20 + [0] * 75 + [1] * 5, margin=0.05)
    assert (found.outcome, found.lost, found.gained) == ("fail", 60, 5)
    assert found.items_needed is None
    assert found.recovery == pytest.approx(25 / 80)


scores = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=40)


@settings(deadline=None, max_examples=40)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60), seed=st.integers(0, 99))
def test_order_does_not_matter_and_bounds_agree_with_the_outcome(pairs: list[tuple[bool, bool]], seed: int) -> None:
    parent, quantized = np.array(pairs, dtype=float).T
    order = np.random.default_rng(seed).permutation(len(pairs))
    found, shuffled = compare(parent, quantized, 0.1), compare(parent[order], quantized[order], 0.1)
    assert found == shuffled
    assert found.lower <= found.estimate <= found.upper
    assert (found.outcome == "pass") == (found.lower >= -0.1)
    assert (found.outcome == "fail") == (found.upper < -0.1)


@settings(deadline=None, max_examples=30)
@given(values=scores, index=st.integers(0, 1000))
def test_turning_a_loss_into_a_tie_never_lowers_the_bound(values: list[float], index: int) -> None:
    parent = np.ones(len(values))
    before = np.array(values)
    after = before.copy()
    after[index % len(values)] = 1.0
    assert compare(parent, after, 0.1).lower >= compare(parent, before, 0.1).lower - 1e-3


@pytest.mark.parametrize("margin", [0, -0.1, float("nan"), float("inf")])
def test_an_impossible_margin_is_refused(margin: float) -> None:
    with pytest.raises(UsageError, match="margin"):
        compare([1.0], [1.0], margin)


@pytest.mark.parametrize(
    ("parent", "quantized", "words"),
    [
        ([{"id": "a", "score": 1}], [{"id": "b", "score": 1}], "one side only"),
        ([{"id": "a", "score": 1}] * 2, [{"id": "a", "score": 1}] * 2, "twice"),
        ([{"id": "a", "score": 1, "group": "x"}], [{"id": "a", "score": 1, "group": "y"}], "another group"),
        ([{"id": "a", "score": float("nan")}], [{"id": "a", "score": 1}], "finite"),
        ([{"id": "a", "score": "1"}], [{"id": "a", "score": 1}], "finite"),
        ([], [], "no items"),
    ],
)
def test_scores_that_do_not_pair_are_refused(parent: list[dict], quantized: list[dict], words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        compare(parent, quantized)


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=200))
def test_any_file_gives_a_verdict_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("scores") / "scores.jsonl"
    path.write_bytes(data)
    with pytest.raises(QuantgovError, match=r"scores\.jsonl"):
        compare(path, path)


def test_files_are_paired_by_id(tmp_path: Path) -> None:
    rows = [{"id": f"i{index}", "score": index % 2} for index in range(20)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in order))
    found = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert (found.items, found.discordant) == (20, 0)

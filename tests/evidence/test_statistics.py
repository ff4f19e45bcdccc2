"""Not worse: exact size, known bounds, invariances, and bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from mlflow_quantgov.errors import EvidenceError, QuantgovError, UsageError
from mlflow_quantgov.evidence.statistics import (
    Comparison,
    clusters_needed_floor,
    compare,
    expect,
    lower_mean_bound,
    power_at,
)

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


@pytest.mark.parametrize(
    ("items", "margin", "gains"), [(60, 0.05, 0.02), (100, 0.1, 0.28), (135, 0.02, 0.005), (150, 0.1, 0.0)]
)
def test_false_pass_rate_at_the_margin_is_at_most_five_percent_and_what_planning_says(
    items: int, margin: float, gains: float
) -> None:
    # Verdict by verdict, where planning solves for the boundary.
    rate = exact_false_pass_rate(items, margin, gains)
    assert rate <= 0.05
    assert power_at(items, margin, expect(2 * gains + margin, -margin)) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize(("successes", "items"), [(0, 10), (3, 20), (149, 149), (70, 100), (4990, 5000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_bound_of_binary_values_is_clopper_pearson(successes: int, items: int, confidence: float) -> None:
    values = np.r_[np.ones(successes), np.zeros(items - successes)]
    expected = float(proportion_confint(successes, items, alpha=2 * (1 - confidence), method="beta")[0])
    assert lower_mean_bound(values, 0.0, confidence) == pytest.approx(0.0 if successes == 0 else expected, abs=1e-8)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bound_is_the_quantile_of_dirichlet_weighted_means(confidence: float) -> None:
    generator = np.random.default_rng(5)
    values = np.r_[generator.uniform(-1, 1, 12), -0.3, -0.3, 0.0]
    weights = generator.dirichlet(np.ones(16), 400_000)
    means = weights @ np.append(values, -1.0)
    # The share of means below the bound, within five standard errors.
    below = float(np.mean(means < lower_mean_bound(values, -1.0, confidence)))
    assert abs(below - (1 - confidence)) < 5 * math.sqrt(confidence * (1 - confidence) / len(means))


@pytest.mark.parametrize("seed", range(4))
def test_clusters_of_many_sizes_are_bounded_as_a_ratio(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 12, 15)
    difference = generator.choice([-1.0, 0.0, 1.0], sizes.sum(), p=[0.3, 0.5, 0.2])
    groups = np.repeat(np.arange(15), sizes)
    lower = compare(np.where(difference < 0, 1.0, 0.0), np.where(difference > 0, 1.0, 0.0), 0.1, groups=groups).lower
    totals = np.bincount(groups, difference)
    weights = generator.exponential(size=(200_000, 16))
    sums, counts = weights @ np.append(totals, -sizes.max()), weights @ np.append(sizes, sizes.max())
    assert abs(float(np.mean(sums / counts < lower)) - 0.05) < 5 * math.sqrt(0.05 * 0.95 / 200_000)


def _tango(lost: int, gained: int, items: int, confidence: float) -> tuple[float, float]:
    """Score interval of gained minus lost: T. Tango, Statistics in Medicine 17 (1998) 891-908."""
    z = norm.ppf((1 + confidence) / 2)

    def score(mean: float) -> float:
        # The restricted maximum-likelihood share of losses solves a quadratic.
        b = -(gained + lost) + (2 * items - gained + lost) * mean
        share = (math.sqrt(b * b + 8 * items * lost * mean * (1 - mean)) - b) / (4 * items)
        return (gained - lost - items * mean) / math.sqrt(items * (2 * share + mean * (1 - mean)))

    middle = (gained - lost) / items
    # Beside the estimate: where no pair disagrees, the score there is 0 / 0.
    below, above = middle - 1e-9, middle + 1e-9
    return brentq(lambda d: score(d) - z, -0.999, below), brentq(lambda d: score(d) + z, above, 0.999)


def _newcombe(both: int, first: int, second: int, neither: int, confidence: float) -> tuple[float, float]:
    """Square-and-add interval of first minus second: R. G. Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10."""
    items = both + first + second + neither
    one, other = (both + first) / items, (both + second) / items
    limits = [proportion_confint(n, items, 1 - confidence, method="wilson") for n in (both + first, both + second)]
    correlation = (both * neither - first * second) / math.sqrt(
        (both + first) * (second + neither) * (both + second) * (first + neither)
    )
    if both * neither > first * second:
        correlation *= max(both * neither - first * second - items / 2, 0) / (both * neither - first * second)

    def reach(a: float, b: float) -> float:
        return math.sqrt(a * a - 2 * correlation * a * b + b * b)

    (low, high), (other_low, other_high) = limits
    return one - other - reach(one - low, other_high - other), one - other + reach(other - other_low, high - one)


def test_a_published_table_lies_inside_our_bounds() -> None:
    # Complete response before and after consolidation therapy (Cavo et al. 2012), the worked example of Fagerland, Lydersen
    # and Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8: 59 both, 6 and 16 one only, 80 neither.
    # The R package contingencytables, by the authors of the book, prints -0.1186 to -0.0046 for Newcombe's square-and-add
    # interval of that table and -0.1240 to -0.0054 for Tango's; neither is computed by code of ours there.
    newcombe = _newcombe(59, 6, 16, 80, 0.95)
    assert newcombe == pytest.approx((-0.1186, -0.0046), abs=5e-5)
    tango = _tango(16, 6, 161, 0.95)
    assert tango == pytest.approx((-0.1240, -0.0054), abs=5e-5)
    before = [1] * 59 + [1] * 16 + [0] * 6 + [0] * 80
    after = [1] * 59 + [0] * 16 + [1] * 6 + [0] * 80
    ours = compare(before, after, 0.02, confidence=0.975)
    # Wider, and not by much: the price of a level that is kept.
    assert ours.lower < min(tango[0], newcombe[0]) and ours.upper > max(tango[1], newcombe[1])
    assert ours.upper - ours.lower < 1.15 * (tango[1] - tango[0])


@pytest.mark.parametrize(
    ("lost", "gained", "items"), [(0, 0, 160), (3, 1, 200), (40, 20, 160), (100, 90, 2000), (2, 12, 50)]
)
def test_tangos_interval_is_narrower_and_ours_approaches_it(lost: int, gained: int, items: int) -> None:
    tango = _tango(lost, gained, items, 0.9)
    values = np.r_[-np.ones(lost), np.zeros(items - lost - gained), np.ones(gained)]
    ours = lower_mean_bound(values, -1.0, 0.95), -lower_mean_bound(-values, -1.0, 0.95)
    assert ours[0] <= tango[0] and ours[1] >= tango[1]
    assert ours[1] - ours[0] < (tango[1] - tango[0]) * (1 + 2 / math.sqrt(lost + gained + 1))


def test_a_stated_range_of_scores_widens_the_bounds_and_is_kept() -> None:
    parent = [4.0, 5.0, 6.0] * 20
    seen, stated = compare(parent, parent, 0.5), compare(parent, parent, 0.5, score_range=(0, 10))
    assert stated.lower == pytest.approx(5 * seen.lower)
    with pytest.raises(EvidenceError, match="outside 0 to 5"):
        compare(parent, parent, 0.5, score_range=(0, 5))
    with pytest.raises(UsageError, match="range"):
        compare(parent, parent, 0.5, score_range=(1, 1))


@pytest.mark.parametrize(
    ("parent", "quantized", "groups", "outcome", "lower", "upper"),
    [
        ([1], [1], None, "inconclusive", -0.95, 0.95),
        ([1], [0], None, "inconclusive", -1, 0.9),
        ([1] * 50, [0] * 50, None, "fail", -1, -1 + 2 * (1 - 0.05 ** (1 / 50))),
        ([1] * 50, [1] * 50, [7] * 50, "inconclusive", -0.95, 0.95),
        ([0.5] * 200, [0.5] * 200, None, "pass", -(1 - 0.05 ** (1 / 200)), 1 - 0.05 ** (1 / 200)),
    ],
)
def test_edges_have_their_closed_forms(
    parent: list[float], quantized: list[float], groups: list[int] | None, outcome: str, lower: float, upper: float
) -> None:
    found = compare(parent, quantized, 0.05, groups=groups)
    assert (found.outcome, found.lower, found.upper) == (outcome, pytest.approx(lower), pytest.approx(upper))
    assert found.items_needed is None or found.items_needed > len(parent)


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


items = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.7, 1.0]), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 9)),
    min_size=1,
    max_size=60,
)


@settings(deadline=None, max_examples=25)
@given(given_items=items, seed=st.integers(0, 99), margin=st.sampled_from([0.05, 0.3, 1.0]))
def test_order_and_names_do_not_matter_and_bounds_agree_with_the_outcome(
    given_items: list[tuple[float, float, int]], seed: int, margin: float
) -> None:
    def judged(rows: list[tuple[float, float, int]], ids: list[str], groups: list[str]) -> Comparison:
        sides = [
            [{"id": name, "score": row[side], "group": groups[row[2]]} for row, name in zip(rows, ids, strict=True)]
            for side in (0, 1)
        ]
        return compare(sides[0], sides[1][::-1], margin)

    generator, count = np.random.default_rng(seed), len(given_items)
    names = [f"item {place}" for place in generator.permutation(count)]
    found = judged(given_items, [f"{place:03d}" for place in range(count)], [f"g{place}" for place in range(10)])
    other = judged(
        [given_items[place] for place in generator.permutation(count)],
        names,
        [f"{place} of ten" for place in generator.permutation(10)],
    )
    assert found == other
    assert found.lower <= found.estimate <= found.upper
    assert (found.outcome == "pass") == (found.lower >= -margin)
    assert (found.outcome == "fail") == (found.upper < -margin)


@settings(deadline=None, max_examples=15)
@given(values=scores, index=st.integers(0, 1000))
def test_turning_a_loss_into_a_tie_never_lowers_the_bound(values: list[float], index: int) -> None:
    parent = np.ones(len(values))
    before = np.array(values)
    after = before.copy()
    after[index % len(values)] = 1.0
    assert compare(parent, after, 0.1).lower >= compare(parent, before, 0.1).lower - 1e-8


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

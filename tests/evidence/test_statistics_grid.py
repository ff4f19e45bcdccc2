"""The proof: how often a verdict is wrong, over the grid of benchmarks/not_worse.py, and that its page says what was seen."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import not_worse as grid

from mlflow_quantgov.evidence.statistics import compare, expect, plan, power_at

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "statistics.md"
CASES = {case.label: case for case in (*grid.cluster_cases(), *grid.real_cases())}
FAST = (
    "5 clusters of 10, fall whole",
    "30 clusters of 10, fall whole",
    "30 clusters of 5 to 15, fall whole, large ones more often",
    "20 clusters of 10, fall item by item",
    "200 items, 0.9 lost rarely, 0.01 gained else",
)


def at_most_five_percent(rate: float, samples: int) -> bool:
    """An exact binomial test that a true rate of 5 % would fail once in ten thousand times."""
    return binomtest(round(rate * samples), samples, 0.05, alternative="greater").pvalue > 1e-4


def cells(first: str, column: int = 0) -> list[str]:
    """A row of the page's tables, by the text of its first columns."""
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in PAGE.read_text().splitlines()
        if "|" in line
    ]
    found = [row for row in rows if " ".join(row[: column + 1]) == first]
    assert len(found) == 1, f"{first!r} stands {len(found)} times in the tables"
    return found[0]


def percents(cell: str) -> list[float]:
    return [float(part.strip(" %")) / 100 for part in cell.split("/")]


@pytest.mark.parametrize(("items", "margin", "discordance"), [(50, 0.1, 0.1), (200, 0.05, 0.3), (5000, 0.02, 0.6)])
def test_wrong_verdicts_on_independent_items_are_rare_enough(items: int, margin: float, discordance: float) -> None:
    _binary_cell(items, margin, discordance, 4000)


@pytest.mark.slow
@pytest.mark.parametrize(("margin", "discordance"), grid.BINARY)
def test_wrong_verdicts_on_independent_items_are_rare_enough_everywhere(margin: float, discordance: float) -> None:
    for items in grid.ITEMS:
        _binary_cell(items, margin, discordance, 10_000)


def _binary_cell(items: int, margin: float, discordance: float, samples: int) -> None:
    exact = grid.exact_rates(items, margin, discordance)
    assert max(exact) <= 0.05
    lost, gained = (discordance + margin) / 2, (discordance - margin) / 2
    label = f"{items} {margin} {discordance}"
    for rate, sum_ in zip(grid.binary_rates(items, margin, lost, gained, samples, label), exact, strict=True):
        assert at_most_five_percent(rate, samples)
        # The sum over all counts, and what was drawn.
        assert binomtest(round(rate * samples), samples, min(max(sum_, 1e-9), 1)).pvalue > 1e-4


@pytest.mark.parametrize("label", FAST)
def test_wrong_verdicts_on_clusters_and_real_scores_are_rare_enough(label: str) -> None:
    for rate in grid.case_rates(CASES[label], 2000):
        assert at_most_five_percent(rate, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("label", CASES)
def test_wrong_verdicts_on_clusters_and_real_scores_are_rare_enough_everywhere(label: str) -> None:
    rates = grid.case_rates(CASES[label], 5000)
    assert all(at_most_five_percent(rate, 5000) for rate in rates)
    row = cells(label)
    assert float(row[1]) == CASES[label].margin
    assert rates == pytest.approx((percents(row[2])[0], percents(row[3])[0]), abs=1e-3)


PLANS = {(one.label, one.margin): one for one in grid.plans()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        ("0/1, 60% differ, true difference 0", 0.3),
        ("0/1, 2% differ, true difference 0", 0.02),
        ("0/1, 20% differ, clusters of 5, correlation 0.1", 0.1),
    ],
)
def test_plans_hold(key: tuple[str, float]) -> None:
    _plan_holds(key, 4000)


@pytest.mark.slow
@pytest.mark.parametrize("key", PLANS)
def test_plans_hold_everywhere(key: tuple[str, float]) -> None:
    found = _plan_holds(key, 5000)
    assert found == pytest.approx(percents(cells(f"{key[0]} {key[1]:g}", 1)[5])[0], abs=1e-3)


def _plan_holds(key: tuple[str, float], samples: int) -> float:
    one = PLANS[key]
    made = plan(one.margin, one.expected)
    found = grid.simulated_power(one, made.clusters, samples)
    assert abs(found - made.power) < 0.03
    assert found > 0.77
    assert made.items == int(cells(f"{key[0]} {key[1]:g}", 1)[2].replace(",", ""))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("items", grid.ITEMS)
def test_power_is_within_three_points_of_simulations_over_the_grid(items: int) -> None:
    for margin, discordance in grid.BINARY:
        expected = expect(discordance)
        planned = power_at(items, margin, expected)
        label = f"power {items} {margin} {discordance}"
        found = grid.binary_rates(items, margin, discordance / 2, discordance / 2, 5000, label)[0]
        assert abs(found - planned) < 0.03


@pytest.mark.slow
def test_plans_from_a_pilot_hold_for_what_it_was_drawn_from() -> None:
    # Not the pilot drawn again, but new items: one of 1,000 items tells the power to three points.
    def differences(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        sign = random.choice([-1.0, 1.0], shape)
        return sign * np.where(
            random.random(shape) < 0.1, random.uniform(0, 0.9, shape), random.exponential(0.02, shape)
        )

    random = grid.generator("a pilot of 1,000 items")
    for margin in (0.02, 0.05):
        made = plan(margin, grid.expect_as_pilot(differences(random, (1000,))))
        values = np.clip(differences(random, (4000, made.items)), -1, 1)
        assert abs(grid.rates(values, np.ones(values.shape), margin)[0] - made.power) < 0.03 + 0.02


@pytest.mark.parametrize("seed", range(3))
def test_the_grid_judges_as_compare_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    margin, seen = 0.1, []
    for _ in range(12):
        sizes = random.integers(1, 6, 60)
        size = np.repeat(np.arange(60), sizes)
        lost = random.random(len(size)) < random.choice([0.01, 0.07, 0.3])
        gained = ~lost & (random.random(len(size)) < 0.02)
        found = compare(np.where(gained, 0.0, 1.0), np.where(lost, 0.0, 1.0), margin, groups=size).outcome
        passed, failed = grid.rates(np.bincount(size, gained * 1.0 - lost)[None], sizes[None].astype(float), margin)
        assert found == ("pass" if passed else "fail" if failed else "inconclusive")
        seen.append(found)
    # Otherwise the agreement would say little.
    assert set(seen) == {"pass", "fail", "inconclusive"}


@pytest.mark.parametrize(("margin", "discordance"), [(0.02, 0.02), (0.05, 0.3), (0.1, 0.1)])
def test_the_page_says_what_was_computed(margin: float, discordance: float) -> None:
    row = cells(f"{margin:g} {discordance:.0%}", 1)
    for items, cell in zip(grid.ITEMS, row[2:], strict=True):
        assert grid.exact_rates(items, margin, discordance) == pytest.approx(percents(cell), abs=5.1e-4)


def test_the_page_has_a_row_for_every_case_and_no_other() -> None:
    text = PAGE.read_text().partition(grid.START)[2].partition(grid.END)[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == len(grid.BINARY) + len(CASES) + len(PLANS) + 3
    for label in FAST:
        row = cells(label)
        assert all(percents(cell)[0] <= 0.055 for cell in row[2:])


def test_the_ratio_passes_more_than_scaled_totals_and_no_more_wrongly() -> None:
    # Sizes of a log-normal distribution. Scaled totals: one number per cluster whose plain mean is the mean over items.
    random, samples, clusters, margin = grid.generator("ratio"), 4000, 20, 0.3
    sizes = np.ceil(np.exp(random.normal(1.5, 1, (samples, clusters))))

    def both(totals: np.ndarray) -> tuple[float, float]:
        scale = clusters / sizes.sum(axis=1, keepdims=True)
        worst = -sizes.max(axis=1, keepdims=True) * scale
        scaled = grid.shown(np.concatenate([totals * scale, worst], axis=1) + margin, np.ones(clusters + 1))
        return grid.rates(totals, sizes, margin)[0], float(scaled.mean())

    # At the margin, with large clusters falling more often; and where flips of 5 % go either way.
    slope = margin * sizes.mean() / (sizes**2).mean()
    wrong = both(-sizes * (random.random(sizes.shape) < np.minimum(1, slope * sizes)))
    flips = random.binomial(sizes.astype(int), 0.05) - random.binomial(sizes.astype(int), 0.05)
    right = both(flips.astype(float))
    assert max(wrong) < 0.05
    assert right == pytest.approx((0.10, 0.02), abs=0.01)


def test_a_large_cluster_that_was_never_drawn_is_not_guarded_against() -> None:
    # The limit that the page names: one cluster in ten is large, only those fall, and 20 clusters may hold none of them.
    def sample(random: np.random.Generator, samples: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.where(random.random((samples, 20)) < 0.1, 50.0, 2.0)
        return -sizes * ((sizes > 2) & (random.random(sizes.shape) < 0.3 * 6.8 / 5)), sizes

    passed, _ = grid.case_rates(grid.Case("unseen", 0.3, sample), 3000)
    assert passed == pytest.approx(0.9**20, abs=0.02)

"""Plans: floors, both directions, refusals, and that they agree with the verdicts that they plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.statistics import compare, expect, expect_as_pilot, plan, power_at
from mlflow_quantgov.evidence.statistics.exponential_sums import tail_estimate, tail_probability


@pytest.mark.parametrize(("margin", "confidence", "items"), [(0.02, 0.95, 149), (0.05, 0.95, 59), (0.001, 0.99, 4603)])
def test_without_any_discordance_the_plan_is_the_floor(margin: float, confidence: float, items: int) -> None:
    made = plan(margin, expect(0), confidence)
    assert (made.items, made.clusters_at_least, made.power) == (items, items, 1.0)
    assert power_at(items - 1, margin, expect(0), confidence) == 0.0


def test_losses_alone_are_planned_as_an_exact_binomial_test() -> None:
    # No gains: the verdict is Clopper-Pearson's, and its power a sum of the binomial distribution.
    items, margin, lost = 300, 0.05, 0.02
    most = max(n for n in range(30) if binom.cdf(n, items, margin) <= 0.05)
    assert power_at(items, margin, expect(lost, -lost)) == pytest.approx(binom.cdf(most, items, lost), abs=1e-9)


def test_more_of_everything_that_makes_it_harder_takes_more_items() -> None:
    base = plan(0.05, expect(0.1)).items
    harder = [
        plan(0.04, expect(0.1)),
        plan(0.05, expect(0.2)),
        plan(0.05, expect(0.1, -0.01)),
        plan(0.05, expect(0.1), confidence=0.99),
        plan(0.05, expect(0.1), power=0.9),
        plan(0.05, expect(0.1, cluster_size=5, correlation=0.3)),
    ]
    assert all(made.items > base for made in harder)
    assert all(made.power >= 0.78 for made in harder)


def test_clusters_that_change_as_one_are_planned_as_items() -> None:
    alone, whole = plan(0.05, expect(0.1)), plan(0.05, expect(0.1, cluster_size=8, correlation=1))
    assert (whole.clusters, whole.items, whole.design_effect) == (alone.clusters, 8 * alone.items, 8)


def test_design_effect_and_correlation_say_the_same() -> None:
    assert expect(0.1, cluster_size=11, design_effect=3).design_effect == pytest.approx(3)
    one, other = expect(0.1, cluster_size=11, design_effect=3), expect(0.1, cluster_size=11, correlation=0.2)
    assert np.allclose(one.chances, other.chances)


def test_clusters_are_dirichlet_multinomial() -> None:
    size, rho, lost, gained = 6, 0.3, 0.2, 0.1
    found = expect(lost + gained, gained - lost, cluster_size=size, correlation=rho)
    variance = found.totals**2 @ found.chances - (found.totals @ found.chances) ** 2
    single = lost + gained - (gained - lost) ** 2
    assert found.difference == pytest.approx(gained - lost)
    assert variance == pytest.approx(size * single * (1 + (size - 1) * rho))
    # Larger clusters than are counted keep their variance.
    large = expect(0.3, cluster_size=1000, correlation=0.05)
    assert large.totals**2 @ large.chances == pytest.approx(1000 * 0.3 * (1 + 999 * 0.05))


def test_units_of_the_score_do_not_matter() -> None:
    one, other = plan(0.05, expect(0.2, 0.01)), plan(5, expect(0.2, 1, span=100))
    assert (one.items, one.power) == (other.items, pytest.approx(other.power))


def test_a_pilot_of_flips_is_planned_as_its_discordance() -> None:
    pilot = np.r_[-np.ones(12), np.ones(8), np.zeros(180)]
    assert plan(0.05, expect_as_pilot(pilot)).items == plan(0.05, expect(0.1)).items
    as_seen = expect_as_pilot(pilot, difference=None)
    assert (as_seen.difference, as_seen.lost, as_seen.gained) == pytest.approx((-0.02, 0.06, 0.04))
    assert plan(0.05, as_seen).items == plan(0.05, expect(0.1, -0.02)).items


def test_groups_of_a_pilot_are_its_clusters() -> None:
    pilot = np.repeat(np.r_[-np.ones(5), np.ones(5), np.zeros(40)], 4)
    found = expect_as_pilot(pilot, np.repeat(np.arange(50), 4))
    assert (found.cluster_size, found.design_effect) == (4, pytest.approx(4))
    assert plan(0.1, found).clusters == plan(0.1, expect(0.2)).clusters


def test_items_needed_is_the_plan_of_what_was_seen() -> None:
    parent, quantized = np.r_[np.ones(95), np.zeros(5)], np.r_[np.ones(92), np.zeros(3), np.ones(2), np.zeros(3)]
    found = compare(parent, quantized, 0.05)
    assert (found.outcome, found.lost, found.gained) == ("inconclusive", 3, 2)
    assert found.items_needed == plan(0.05, expect(0.05, -0.01)).items
    # Nothing was lost in any cluster: as many clusters as the floor.
    clustered = compare(np.ones(90), np.ones(90), 0.05, groups=np.arange(90) // 3)
    assert clustered.items_needed == 59 * 3


def test_items_needed_settles_a_loss_too() -> None:
    parent, quantized = np.ones(40), np.r_[np.zeros(4), np.ones(36)]
    found = compare(parent, quantized, 0.05)
    assert found.outcome == "inconclusive" and found.items_needed is not None
    times = found.items_needed / 40
    larger = compare(
        np.ones(found.items_needed),
        np.r_[np.zeros(round(4 * times)), np.ones(found.items_needed - round(4 * times))],
        0.05,
    )
    assert larger.outcome == "fail"


def test_a_loss_at_the_margin_takes_more_than_anybody_has() -> None:
    found = compare(np.ones(100), np.r_[np.zeros(5), np.ones(95)], 0.05)
    assert (found.outcome, found.items_needed) == ("inconclusive", 10_000_000)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: expect(1.2), "discordance"),
        (lambda: expect(0.01, -0.02), "needs at least 0.02"),
        (lambda: expect(0.1, cluster_size=0), "cluster size"),
        (lambda: expect(0.1, cluster_size=5, design_effect=6), "design effect"),
        (lambda: expect(0.1, cluster_size=5, design_effect=2, correlation=0.1), "Both"),
        (lambda: expect(0.1, cluster_size=5, correlation=-0.1), "correlation"),
        (lambda: expect(0.1, span=0), "span"),
        (lambda: expect_as_pilot([]), "no differences"),
        (lambda: expect_as_pilot([0.0, float("nan")]), "not finite"),
        (lambda: expect_as_pilot([0.1, 0.2], [1]), "1 groups"),
        (lambda: expect_as_pilot([0.1, 0.2], difference=-0.5), "larger than"),
        (lambda: plan(0.02, expect(0.1, -0.02)), "reaches the margin"),
        (lambda: plan(0.02, expect(0.6, -0.01999)), "clusters are needed"),
        (lambda: plan(0, expect(0.1)), "margin"),
        (lambda: plan(0.02, expect(0.1), confidence=1), "confidence"),
        (lambda: plan(0.02, expect(0.1), power=1), "power"),
    ],
)
def test_plans_that_cannot_be_are_refused(make: object, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        make()
    assert "Fix: " in str(error.value)


@settings(deadline=None, max_examples=25)
@given(margin=st.floats(0.01, 0.5), discordance=st.floats(0, 1), share=st.floats(-0.8, 1), power=st.floats(0.5, 0.95))
@example(margin=0.5, discordance=2.2250738585072014e-308, share=0.0, power=0.5)
@example(margin=0.5, discordance=5e-324, share=1.0, power=0.5)
def test_every_plan_reaches_its_power(margin: float, discordance: float, share: float, power: float) -> None:
    expected = expect(discordance, share * min(margin, discordance))
    made = plan(margin, expected, power=power)
    assert made.power >= power - 1e-6
    assert (
        made.items <= made.clusters_at_least or power_at(made.items - 1, margin, expected) < power or made.items > 5000
    )


@pytest.mark.parametrize("tail", [tail_probability, tail_estimate])
def test_weights_beyond_all_measure_count_as_none(tail: object) -> None:
    values = np.array([[1.0, -1e-320], [1.0, -1e-90], [-1.0, 1e-300], [0.0, 0.0]])
    with np.errstate(all="raise"):
        assert tail(values, np.ones(2)).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("losses", "items", "margin"), [(0, 4603, 0.001), (1, 5, 0.1), (2, 149, 0.02), (20, 500, 0.05)]
)
def test_probabilities_of_two_values_are_the_binomial_ones(losses: int, items: int, margin: float) -> None:
    # Few clusters that decide among many that do not: the integrand oscillates along the straight line.
    values, counts = np.array([margin, margin - 1, margin - 1]), np.array([items - losses, losses, 1.0])
    assert float(tail_probability(values, counts)) == pytest.approx(binom.cdf(losses, items, margin), rel=1e-7)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 200)), min_size=2, max_size=8), worst=st.floats(-1, -0.1)
)
def test_the_estimate_is_near_the_probability_where_it_decides(rows: list[tuple[float, int]], worst: float) -> None:
    values, counts = np.array([*(value for value, _ in rows), worst]), np.array([*(count for _, count in rows), 1.0])
    exact = float(tail_probability(values, counts))
    if 0.01 < exact < 0.1:
        assert float(tail_estimate(values, counts)) == pytest.approx(exact, rel=0.12)

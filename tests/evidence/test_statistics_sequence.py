"""Bounds that hold whenever one stops: exactly for fair signs, by simulation for noise that hangs together, and their shape."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mlflow_quantgov.evidence.statistics.sequence import least_count, median_bounds, signs_needed

HORIZON = 300
positive = st.floats(1e-3, 1e3)


def ever_crosses(needed: list[int | None]) -> Fraction:
    """Probability that fair signs ever reach the numbers that are needed after 1, 2, ... of them, exactly."""
    alive, crossed = {0: Fraction(1)}, Fraction(0)
    for wanted in needed:
        moved: dict[int, Fraction] = {}
        for above, chance in alive.items():
            for step in (0, 1):
                moved[above + step] = moved.get(above + step, Fraction(0)) + chance / 2
        alive = {above: chance for above, chance in moved.items() if wanted is None or above < wanted}
        crossed += sum(moved.values()) - sum(alive.values())
    return crossed


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.05, 0.025, 0.01])
def test_looking_after_every_round_and_stopping_at_will_errs_no_more_often_than_said(level: float) -> None:
    chance = ever_crosses([signs_needed(count, level) for count in range(1, HORIZON + 1)])
    assert 0.4 * level < chance <= level


def test_bounds_of_a_fixed_number_would_err_far_more_often() -> None:
    """Why the earlier rule, order statistics by the binomial distribution, cannot be looked at again and again."""

    def fixed(count: int) -> int | None:
        above = int(binom.isf(0.05, count, 0.5)) + 1
        return above if above <= count else None

    assert ever_crosses([fixed(count) for count in range(1, HORIZON + 1)]) > 0.25


def test_seven_observations_are_the_fewest_that_give_a_bound() -> None:
    assert least_count(0.05) == 7
    assert median_bounds([2.0] * 6, 0.05) == (None, None)
    assert median_bounds([2.0] * 7, 0.05) == (2.0, 2.0)


def correlated(generator: np.random.Generator, runs: int, slots: int, memory: float) -> np.ndarray:
    """Logarithms of the machine's pace at each moment: what happened just before goes on (AR(1)), with heavy tails."""
    found = np.zeros((runs, slots))
    shocks = 0.2 * generator.standard_t(2.5, (runs, slots))
    for slot in range(1, slots):
        found[:, slot] = memory * found[:, slot - 1] + shocks[:, slot]
    return found


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.95])
def test_with_a_coin_for_the_order_noise_that_hangs_together_does_no_harm(memory: float) -> None:
    """Both sides are equally fast: whoever stops at the first bound that suits him is wrong in 5 % of the runs, for either side."""
    generator = np.random.default_rng(7)
    runs, rounds = 4000, 120
    slots = correlated(generator, runs, 2 * rounds, memory)
    # A machine that slows down all the time, and a first place that is always better than the second.
    slots += np.linspace(0, -1, 2 * rounds) + np.tile([0.3, 0.0], rounds)
    first = generator.random((runs, rounds)) < 0.5
    difference = slots[:, 0::2] - slots[:, 1::2]
    ratio = np.where(first, difference, -difference)
    for signs in (ratio > 0, ratio < 0):
        above = signs.cumsum(axis=1)
        needed = np.array([signs_needed(count, 0.05) or math.inf for count in range(1, rounds + 1)])
        wrong = float((above >= needed).any(axis=1).mean())
        assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_an_order_that_is_always_the_same_takes_the_machine_for_the_model() -> None:
    """The case that the coin is there for: one that slows down within every round looks like a slower model."""
    generator = np.random.default_rng(7)
    slots = correlated(generator, 500, 240, 0.5) + np.tile([0.3, 0.0], 120)
    above = (slots[:, 0::2] > slots[:, 1::2]).cumsum(axis=1)
    needed = np.array([signs_needed(count, 0.05) or math.inf for count in range(1, 121)])
    assert (above >= needed).any(axis=1).mean() > 0.5


@given(st.lists(positive, min_size=7, max_size=60), st.floats(0.01, 100))
def test_bounds_lie_around_the_median_and_follow_units_order_and_direction(values: list[float], factor: float) -> None:
    low, high = median_bounds(values, 0.05)
    assert low is not None and high is not None
    assert low <= np.median(values) <= high
    assert median_bounds(values[::-1], 0.05) == (low, high)
    scaled = median_bounds([factor * one for one in values], 0.05)
    assert scaled == pytest.approx((factor * low, factor * high))
    inverted = median_bounds([1 / one for one in values], 0.05)
    assert inverted == pytest.approx((1 / high, 1 / low))


@given(st.lists(positive, min_size=7, max_size=60), st.floats(0.001, 0.04))
def test_a_stricter_level_gives_wider_bounds(values: list[float], level: float) -> None:
    low, high = median_bounds(values, 0.05)
    wider = median_bounds(values, level)
    assert low is not None and high is not None
    assert wider[0] is None or wider[0] <= low
    assert wider[1] is None or wider[1] >= high


@given(st.integers(7, 400))
def test_every_number_of_rounds_needs_a_majority_and_no_fewer_signs_suffice(count: int) -> None:
    needed = signs_needed(count, 0.05)
    assert needed is not None and count / 2 < needed <= count
    following = signs_needed(count + 1, 0.05)
    assert following is not None and 0 <= following - needed <= 1


def test_narrowing_takes_as_many_rounds_as_the_documents_say() -> None:
    """Noise of 5 %: about 30 rounds for an interval of 10 %; of 20 %: more than 200."""
    generator = np.random.default_rng(1)

    def rounds_until_narrow(noise: float) -> float:
        found = []
        for _ in range(40):
            values = np.exp(generator.normal(0, noise, 300)).tolist()
            widths = ((count, median_bounds(values[:count], 0.05)) for count in range(7, 301))
            found.append(next((count for count, (low, high) in widths if low and high and high / low <= 1.1), 300))
        return float(np.median(found))

    assert 10 <= rounds_until_narrow(0.05) <= 50 and rounds_until_narrow(0.2) > 150

"""What a sample says of the whole, and what decides which items it holds."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.evidence.drawing import drawn, new_seed, places_of
from mlflow_quantgov.evidence.statistics.samples import chance_hidden, highest_share, most_expected


def exactly(of: int, count: int, forged: int, tolerated: int) -> Fraction:
    """By counting samples."""
    ways = sum(math.comb(forged, bad) * math.comb(of - forged, count - bad) for bad in range(min(tolerated, count) + 1))
    return Fraction(ways, math.comb(of, count))


@given(st.integers(1, 60), st.data())
def test_what_stays_hidden_is_counted_by_samples(of: int, data: st.DataObject) -> None:
    count, forged = data.draw(st.integers(0, of)), data.draw(st.integers(0, of))
    tolerated = data.draw(st.integers(0, 5))
    found = chance_hidden(of, count, forged / of, tolerated)
    assert found == pytest.approx(float(exactly(of, count, forged, tolerated)), abs=1e-9)


def test_twenty_items_of_six_hundred() -> None:
    assert [round(chance_hidden(600, 20, share), 3) for share in (0.05, 0.10, 0.25)] == [0.352, 0.117, 0.003]
    # A share is rounded up to whole items, and a whole sample hides nothing.
    assert chance_hidden(3, 3, 0.05) == 0.0 and chance_hidden(3, 0, 0.5) == 1.0


@given(st.integers(1, 300), st.floats(0, 0.5))
def test_honest_answers_exceed_what_is_tolerated_in_at_most_one_sample_of_a_hundred(count: int, share: float) -> None:
    tolerated = most_expected(count, share)

    def above(most: int) -> float:
        return 1 - sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(most + 1))

    assert above(tolerated) <= 0.01 + 1e-9
    assert tolerated == 0 or above(tolerated - 1) > 0.01 - 1e-9


@given(st.integers(0, 30), st.integers(1, 200))
def test_the_highest_share_would_show_as_few_one_time_in_twenty(count: int, of: int) -> None:
    share = highest_share(count, of)
    if count >= of:
        assert share == 1.0
        return
    seen = sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(count + 1))
    assert seen == pytest.approx(0.05, abs=1e-6)


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=5), st.integers(0, 40)), max_size=4, unique_by=lambda one: one[0]),
    st.integers(0, 60),
    st.integers(0, 60),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_asking_for_more_gives_the_same_items_and_others(
    counts: list[tuple[str, int]], few: int, more: int, seed: str
) -> None:
    places = places_of(counts)
    first, second = drawn(seed, places, min(few, more)), drawn(seed, places, max(few, more))
    assert len(first) == min(few, more, len(places)) and set(first) <= set(second) <= set(places)
    assert first == sorted(first, key=places.index) and drawn(seed, places, len(places)) == places


def test_every_item_is_drawn_about_as_often() -> None:
    places = places_of([("a", 10), ("b", 10)])
    counts = dict.fromkeys(places, 0)
    for number in range(2000):
        for place in drawn(f"{number:064x}", places, 5):
            counts[place] += 1
    # 500 expected of each; six standard deviations are 116.
    assert all(abs(count - 500) < 116 for count in counts.values())


def test_seeds_are_drawn_anew() -> None:
    assert len({new_seed() for _ in range(100)}) == 100 and all(len(new_seed()) == 64 for _ in range(3))

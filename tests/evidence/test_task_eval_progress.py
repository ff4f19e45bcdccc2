"""Progress: what will be asked, how far it is, and how long it still takes, by answers that were given now."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.evidence.measure import task_eval_progress
from mlflow_quantgov.evidence.measure.cache import BatchCache
from mlflow_quantgov.evidence.measure.lm_eval_model import generate
from mlflow_quantgov.evidence.measure.progress import duration
from mlflow_quantgov.evidence.measure.task_eval_progress import Meter


def test_answers_that_were_kept_say_nothing_about_the_time_left(tmp_path: Path) -> None:
    said: list[tuple[str, float]] = []
    batches = BatchCache(tmp_path, ["m"])
    batches.answer("generate", ["kept"], lambda: ["x"])
    again = BatchCache(tmp_path, ["m"])
    meter = Meter(lambda text, fraction: said.append((text, fraction)), "parent", 0.0, 0.5, again)
    meter.announce({"one": 2, "two": 1})
    assert said == [("parent: 2 tasks, 3 items to answer", 0.0)]
    again.answer("generate", ["kept"], lambda: ["x"])
    meter.advance(0.5)
    assert meter.seconds_left() is None and said[-1] == ("parent", 0.25)

    def slowly() -> list[str]:
        time.sleep(1.1)
        return ["y"]

    again.answer("generate", ["new"], slowly)
    meter.advance(0.75)
    left = meter.seconds_left()
    # An eighth of the whole took 1.1 seconds, five eighths are left.
    assert left is not None and left >= 5 * 1.1
    assert said[-1][0] == f"parent, about {duration(left)} left"


def test_a_batch_that_takes_long_says_how_far_it_is(
    bigram: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch of a slow model stood at 0 % for minutes."""
    monkeypatch.setattr(task_eval_progress, "_LEAST_SECONDS", 0.0)
    said: list[tuple[str, float]] = []
    batches = BatchCache(None, [])
    meter = Meter(lambda text, fraction: said.append((text, fraction)), "parent", 0.0, 1.0, batches)
    settings = {"until": [], "max_gen_toks": 2}
    model = bigram("abababab\n" * 20)
    generate(model, [("a", settings)] * 3, 1, meter.advance, kept=batches)
    model.generate(["a"], max_tokens=2)  # is no part of the evaluation any more
    assert [fraction for _, fraction in said] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert said[0][0].startswith("parent, about ")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "1 s"), (89.4, "89 s"), (90, "2 minutes"), (5399, "90 minutes"), (5400, "1.5 hours")]
)
def test_times_are_said_in_units_that_people_use(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_progress_stays_within_its_part(start: float, share: float, fractions: list[float]) -> None:
    seen: list[float] = []
    meter = Meter(lambda _, fraction: seen.append(fraction), "x", start, share, BatchCache(None, []))
    for fraction in sorted(fractions):
        meter.advance(fraction)
    assert seen == sorted(seen) and all(start <= one <= start + share for one in seen)

"""What a capability may rest on: tasks that can show damage, by the metric that counts, with the parent's own noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from releases import items, task

from mlflow_quantgov.evidence.predicates import TaskItem, TaskResult
from mlflow_quantgov.policy.checks.capability import Verdict, judge
from mlflow_quantgov.policy.schema import Capability

NAME = "edge-cases"
CHANCE = [(float(number % 4 == 0), float(number % 4 == 0)) for number in range(400)]


def judged(*results: TaskResult, scored_only: bool = False, **wanted: Any) -> Verdict:
    demand = Capability(**({"margin": 0.02} | wanted))
    return judge(NAME, demand, {one.task: one for one in results}, scored_only=scored_only)


def picks(scores: list[tuple[float, float]], choices: int = 4) -> TaskResult:
    answered = tuple(
        one.model_copy(
            update={
                "parent": one.parent.model_copy(update={"logprobs": (-1.0,) * choices}),
                "quantized": one.quantized.model_copy(update={"logprobs": (-1.0,) * choices}),
            }
        )
        for one in items(scores, "picks")
    )
    return task(NAME, answered, task="picks", output_type="multiple_choice")


def test_a_thousand_choices_do_not_lift_one_generated_answer() -> None:
    one = task(NAME, items([(1, 1)], "one"))
    found = judged(one, picks([(1, 1)] * 1000), min_items=149)
    assert found.outcome == "inconclusive" and "has 1 items" in found.reason
    assert "not counted: picks is multiple choice" in found.reason
    assert found.numbers["tasks"]["picks"]["carries"] is False


def test_choices_that_were_lost_still_fail() -> None:
    generated = task(NAME, items([(1, 1)] * 300, "generated"))
    found = judged(generated, picks([(1, 0)] * 300 + [(1, 1)] * 700))
    assert (found.outcome == "fail" and "picks alone fell" in found.reason) or "fell" in found.reason


def test_choices_alone_are_missing_unless_the_policy_takes_them() -> None:
    easy = picks([(1, 1)] * 900 + [(0, 0)] * 100)
    assert judged(easy).outcome == "missing"
    assert judged(easy, scored_only=True).outcome == "pass"


def test_a_parent_at_chance_cannot_show_damage() -> None:
    found = judged(picks(CHANCE), scored_only=True)
    assert found.outcome == "inconclusive" and "chance is 25.0%" in found.reason
    bottom = judged(task(NAME, items([(0.0, 0.0)] * 300)))
    assert bottom.outcome == "inconclusive" and "the lowest score is 0.0%" in bottom.reason


def test_a_parent_at_the_ceiling_is_said() -> None:
    found = judged(task(NAME, items([(1.0, 1.0)] * 300)))
    assert found.outcome == "pass" and "ceiling" in found.reason


def test_the_metric_that_the_policy_counts() -> None:
    other = task(NAME, metric="f1")
    wanted = {"tasks": [{"task": other.task, "metric": "exact_match", "min_items": 150}]}
    found = judged(other, **wanted)
    assert found.outcome == "missing" and f"--metric {other.task}=exact_match" in found.reason
    few = judged(task(NAME, items([(1, 1)] * 149)), **wanted)
    assert few.outcome == "inconclusive" and "149 items, the policy wants 150" in few.reason
    assert judged(task(NAME, items([(1, 1)] * 200)), **wanted).outcome == "pass"


def again(scores: list[tuple[float, float]], twice: list[float]) -> tuple[TaskItem, ...]:
    return tuple(
        one.model_copy(update={"parent_again": score}) for one, score in zip(items(scores), twice, strict=True)
    )


def test_a_parent_that_does_not_repeat_itself_only_makes_passing_harder() -> None:
    scores = [(1.0, 1.0)] * 400
    calm = judged(task(NAME, again(scores, [1.0] * 400)))
    assert calm.outcome == "pass" and "flips 0 of 400" in calm.reason
    # The parent lost 5 % of its own answers when it was asked again: the runtime drifts by more than the margin.
    drift = judged(task(NAME, again(scores, [0.0] * 20 + [1.0] * 380)))
    assert drift.outcome == "inconclusive" and "flips 20 of 400" in drift.reason


@pytest.mark.slow
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 3), min_size=1, max_size=200))
def test_noise_never_helps(answers: list[tuple[float, float, float]]) -> None:
    scores = [(parent, quantized) for parent, quantized, _ in answers]
    once = judged(task(NAME, items(scores)), margin=0.2)
    twice = judged(task(NAME, again(scores, [one for *_, one in answers])), margin=0.2)
    order = ["fail", "missing", "inconclusive", "pass"]
    assert order.index(twice.outcome) <= order.index(once.outcome)


def test_scores_on_another_range_are_judged_in_their_own_units() -> None:
    graded = task(NAME, items([(8.0, 8.0)] * 200 + [(6.0, 6.0)] * 100))
    found = judged(graded, margin=0.5, score_range=(0.0, 10.0))
    assert found.outcome == "pass" and "7.333" in found.reason
    assert found.numbers["parent_mean"] == pytest.approx(22 / 3)
    assert judged(graded).outcome == "missing"


@pytest.mark.parametrize("given_range", [(1.0, 0.0), (0.0, math.inf), (0.0, 0.01)])
def test_a_range_that_makes_no_sense_is_refused(given_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"score_range|margin"):
        Capability(margin=0.02, score_range=given_range)


def test_errors_that_are_counted_upwards_are_not_judged() -> None:
    """Scores where lower is better are kept negated; else a loss would look like a gain."""
    worse = task(NAME, items([(0, 1)] * 100 + [(0, 0)] * 200, "wrong"), metric="error_rate", higher_is_better=False)
    found = judged(worse)
    assert found.outcome == "missing" and "counts errors upwards (task-edge-cases, error_rate" in found.reason
    negated = tuple(
        one.model_copy(
            update={
                "parent": one.parent.model_copy(update={"score": -0.1}),
                "quantized": one.quantized.model_copy(update={"score": -0.1}),
            }
        )
        for one in worse.items
    )
    assert judged(worse.model_copy(update={"items": negated}), score_range=(-1.0, 0.0)).outcome == "pass"


@pytest.mark.parametrize(
    ("output", "words"), [(None, "is kept without the answers"), (" \n", "the parent wrote nothing on task-edge-cases")]
)
def test_answers_that_nobody_kept_or_wrote_carry_nothing(output: str | None, words: str) -> None:
    answered = tuple(
        one.model_copy(
            update={
                "parent": one.parent.model_copy(update={"output": output}),
                "quantized": one.quantized.model_copy(update={"output": output}),
            }
        )
        for one in items([(1, 1)] * 200)
    )
    found = judged(task(NAME, answered))
    assert found.outcome == "missing" and words in found.reason

"""One capability: which of its tasks can show damage, and whether more was lost than the margin."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from mlflow_quantgov.evidence.predicates import TaskItem, TaskResult
from mlflow_quantgov.evidence.predicates.task_eval import is_likelihood
from mlflow_quantgov.evidence.statistics import Comparison, compare, lower_mean_bound
from mlflow_quantgov.policy.checks.clusters import clusters_of
from mlflow_quantgov.policy.decision import Outcome
from mlflow_quantgov.policy.schema import Capability


@dataclass(frozen=True)
class Verdict:
    """Outcome of one capability."""

    outcome: Outcome
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)


def judge(name: str, wanted: Capability, tasks: dict[str, TaskResult], *, scored_only: bool) -> Verdict:
    """Judge one capability over the items of all its tasks that can show damage.

    A task of which the parent answers no more than chance cannot get worse, and one that only scores choices barely does when
    a model breaks: they may show a loss, and never its absence. So no number of their items makes up for others.

    Args:
        name: The capability.
        wanted: What the policy demands of it.
        tasks: The newest result of every task on exactly these two models.
        scored_only: Whether tasks that only score choices may carry a capability.
    """
    mine = _chosen(name, wanted, tasks)
    if isinstance(mine, Verdict):
        return mine
    items = sum(len(one.items) for one in mine)
    if all(_is_perplexity(one) for one in mine):
        rests = " and ".join(f"{one.task}, {one.metric}" for one in mine)
        why = f"{name} rests on how likely a text is, which is a perplexity ({rests}): nothing was answered"
        return Verdict("missing", why, {"items": items})
    low, high = wanted.score_range
    if any(not low <= score <= high for one in mine for item in one.items for score in _scores(item)):
        why = f"{name} has scores outside {low:g} to {high:g}; the policy's margin means nothing for them"
        return Verdict("missing", why, {"items": items})
    if upwards := next((one for one in mine if not one.higher_is_better and any(map(_is_positive, one.items))), None):
        why = f"{name} counts errors upwards ({upwards.task}, {upwards.metric}: lower is better), and such scores are kept negated"
        return Verdict("missing", why, {"items": items})
    why_not = {one.task: _why_not(one, wanted, scored_only) for one in mine}
    carrying = [one for one in mine if not why_not[one.task]]
    alone = {one.task: _compare([one], wanted) for one in mine}
    found = _compare(carrying or mine, wanted)
    numbers = found.to_dict() | {"tasks": {one.task: _numbers(alone[one.task], why_not[one.task]) for one in mine}}
    if fell := _fall(name, wanted, mine, alone, found):
        return Verdict("fail", fell, numbers)
    if not carrying:
        return _nothing_carries(name, mine, why_not, numbers, scored_only)
    return _weigh(name, wanted, carrying, found, numbers, [why for why in why_not.values() if why])


def _chosen(name: str, wanted: Capability, tasks: dict[str, TaskResult]) -> list[TaskResult] | Verdict:
    """The tasks that measure it, or why it is not measured."""
    if not wanted.tasks:
        mine = [one for one in tasks.values() if one.capability == name]
        how = f"no task for {name} (metadata.capability, or --capability TASK={name})"
        return mine or Verdict("missing", f"Not measured: {how}")
    mine = []
    for choice in wanted.tasks:
        one = tasks.get(choice.task)
        if one is None:
            return Verdict("missing", f"Not measured: {name} wants the task {choice.task}")
        if not choice.fits(one):
            how = f"the task {one.task} was measured by {one.metric}, and the policy counts {choice.metric}"
            return Verdict("missing", f"Not measured: {name}: {how} (--metric {one.task}={choice.metric})")
        if len(one.items) < choice.min_items:
            few = f"the task {one.task} has {len(one.items)} items, the policy wants {choice.min_items}"
            return Verdict("inconclusive", f"{name}: {few}", {"items": len(one.items)})
        mine.append(one)
    return mine


def _why_not(task: TaskResult, wanted: Capability, scored_only: bool) -> str:
    """Why a task cannot show that nothing was lost; empty where it can."""
    if _is_perplexity(task):
        return f"{task.task} measures how likely a text is, which is a perplexity"
    if not scored_only and task.output_type == "multiple_choice":
        return f"{task.task} is multiple choice"
    if not scored_only and _is_unwritten(task):
        kept = "was imported" if task.output_type == "imported" else "is kept"
        return f"{task.task} {kept} without the answers, and may be multiple choice"
    if _is_silent(task):
        return f"the parent wrote nothing on {task.task}"
    before = fmean(item.parent.score for item in task.items)
    bottom, words = _bottom(task, wanted)
    if before - bottom <= wanted.margin or _least(task, wanted) <= bottom:
        return f"the parent scores {_show(before, wanted)} on {task.task}, and {words} {_show(bottom, wanted)}"
    return ""


def _bottom(task: TaskResult, wanted: Capability) -> tuple[float, str]:
    """The score of somebody who knows nothing: one in so many choices, else the lowest score there is."""
    choices = [item.choices or len(item.parent.logprobs or ()) for item in task.items]
    if task.output_type == "multiple_choice" and all(choices) and _is_binary(task):
        return fmean(1 / count for count in choices), "chance is"
    return wanted.score_range[0], "the lowest score is"


def _least(task: TaskResult, wanted: Capability) -> float:
    """Lower bound of what the parent scores, by clusters of equal weight."""
    groups: dict[int, list[float]] = {}
    for item, cluster in zip(task.items, clusters_of(task.items), strict=True):
        groups.setdefault(cluster, []).append(item.parent.score)
    means = np.array([fmean(scores) for scores in groups.values()])
    return lower_mean_bound(means, wanted.score_range[0], wanted.confidence)


def _fall(
    name: str, wanted: Capability, mine: list[TaskResult], alone: dict[str, Comparison], found: Comparison
) -> str | None:
    """In words, where a loss beyond the margin was shown: of all items, of those that carry, or of one task alone."""
    pooled = _compare(mine, wanted) if found.items < sum(len(one.items) for one in mine) else found
    for one in dict.fromkeys((pooled, found)):
        if one.outcome == "fail":
            fell = f"{_show(one.parent_mean, wanted)} to {_show(one.quantized_mean, wanted)}"
            return f"{name} fell from {fell} on {one.items} items (margin {_show(wanted.margin, wanted)})"
    for task, one in alone.items():
        # Other tasks of the same capability must not hide one that was lost.
        if one.outcome == "fail":
            fell = f"{_show(one.parent_mean, wanted)} to {_show(one.quantized_mean, wanted)}"
            return f"{name}: the task {task} alone fell from {fell} (margin {_show(wanted.margin, wanted)})"
    return None


def _nothing_carries(
    name: str, mine: list[TaskResult], why_not: dict[str, str], numbers: dict[str, Any], scored_only: bool
) -> Verdict:
    if not scored_only and all(one.output_type == "multiple_choice" for one in mine):
        return Verdict(
            "missing", f"{name} rests on multiple choice alone, which barely moves when a model breaks", numbers
        )
    unwritten = (one for one in mine if one.output_type != "multiple_choice")
    if not scored_only and all(
        one.output_type == "imported" or _is_unwritten(one) or _is_silent(one) for one in unwritten
    ):
        return Verdict("missing", f"{name}: {'; '.join(why_not.values())}", numbers)
    return Verdict(
        "inconclusive", f"{name}: {'; '.join(why_not.values())}: a loss of the margin could not be seen", numbers
    )


def _weigh(
    name: str,
    wanted: Capability,
    carrying: list[TaskResult],
    found: Comparison,
    numbers: dict[str, Any],
    aside: list[str],
) -> Verdict:
    """Pass, or what is missing for it."""
    margin = _show(wanted.margin, wanted)
    before, after = _show(found.parent_mean, wanted), _show(found.quantized_mean, wanted)
    notes = [f"not counted: {one}" for one in aside]
    if wanted.score_range[1] - found.parent_mean <= wanted.margin:
        notes.append("the parent is at the ceiling: items this easy show large losses only")
    noise = _noise(carrying, wanted)
    lower = found.lower
    if noise is not None:
        shown = max(0.0, noise.lower, -noise.upper)
        lower -= shown
        flips = f"asked twice, the parent flips {noise.discordant} of {noise.items} of its own scores"
        notes.append(f"{flips}; the quantized version flips {found.discordant} of {found.items}")
        numbers |= {"noise": {"items": noise.items, "flips": noise.discordant, "shown_shift": shown}, "lower": lower}
    numbers |= {"notes": notes}
    tail = f" ({'; '.join(notes)})" if notes else ""
    if found.items < wanted.min_items:
        return Verdict(
            "inconclusive", f"{name} has {found.items} items, the policy wants {wanted.min_items}{tail}", numbers
        )
    worst = f"the loss may be as large as {_show(-lower, wanted)}, margin {margin}"
    if found.outcome == "inconclusive":
        more = f"about {found.items_needed:,} items would settle it" if found.items_needed else "more items are needed"
        return Verdict(
            "inconclusive", f"{name}: {before} -> {after} on {found.items} items; {worst}; {more}{tail}", numbers
        )
    if lower < -wanted.margin:
        itself = f"the parent's own scores moved by at least {_show(lower - found.lower, wanted).lstrip('-')} when asked again"
        return Verdict("inconclusive", f"{name}: {itself}, so {worst}{tail}", numbers | {"outcome": "inconclusive"})
    return Verdict(
        "pass",
        f"{name} held: {before} -> {after} on {found.items} items (at worst {_show(-lower, wanted)} lost){tail}",
        numbers,
    )


def _noise(tasks: list[TaskResult], wanted: Capability) -> Comparison | None:
    """The parent against itself; None where it was asked once."""
    twice = []
    for task in tasks:
        items = tuple(
            item.model_copy(update={"quantized": item.parent.model_copy(update={"score": item.parent_again})})
            for item in task.items
            if item.parent_again is not None
        )
        if items:
            twice.append(task.model_copy(update={"items": items}))
    return _compare(twice, wanted) if twice else None


def _compare(tasks: list[TaskResult], wanted: Capability) -> Comparison:
    """Paired comparison of all items of some tasks."""
    parent: list[dict[str, Any]] = []
    quantized: list[dict[str, Any]] = []
    for task in tasks:
        clusters = clusters_of(task.items)
        for item, cluster in zip(task.items, clusters, strict=True):
            identity, group = f"{task.task}/{item.id}", f"{task.task}/{cluster}"
            parent.append({"id": identity, "score": item.parent.score, "group": group})
            quantized.append({"id": identity, "score": item.quantized.score, "group": group})
    return compare(
        parent, quantized, margin=wanted.margin, confidence=wanted.confidence, score_range=wanted.score_range
    )


def _numbers(found: Comparison, why_not: str) -> dict[str, Any]:
    keys = ("outcome", "items", "clusters", "parent_mean", "quantized_mean", "lost", "gained")
    return {key: getattr(found, key) for key in keys} | {"carries": not why_not, "why_not": why_not or None}


def _scores(item: TaskItem) -> list[float]:
    again = [] if item.parent_again is None else [item.parent_again]
    return [item.parent.score, item.quantized.score, *again]


def _is_positive(item: TaskItem) -> bool:
    return any(score > 0 for score in _scores(item))


def _is_unwritten(task: TaskResult) -> bool:
    """Whether answers are missing where some should have been written: nobody can tell that they were not chosen."""
    bare = (item.parent.output is None or item.quantized.output is None for item in task.items)
    return task.output_type in {"generate_until", "imported"} and any(bare)


def _is_silent(task: TaskResult) -> bool:
    """Whether the parent wrote nothing at all, so that its score is no score of answers."""
    return all(item.parent.output is not None and not item.parent.output.strip() for item in task.items)


def _is_perplexity(task: TaskResult) -> bool:
    """Whether its scores say how likely given texts are: by the metric's name, or where no item is simply right or wrong."""
    return is_likelihood(task.metric) or (task.output_type == "loglikelihood" and not _is_binary(task))


def _is_binary(task: TaskResult) -> bool:
    return all(score in {0.0, 1.0} for item in task.items for score in _scores(item))


def _show(score: float, wanted: Capability) -> str:
    """Per cent on a scale from 0 to 1, else as it is."""
    return f"{score:.1%}" if wanted.score_range == (0.0, 1.0) else f"{score:.4g}"

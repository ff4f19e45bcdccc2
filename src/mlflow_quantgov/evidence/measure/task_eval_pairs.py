"""Two sides' answers to one task, paired item by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.task_eval_runs import MAX_OUTPUT, Sample, TaskRun
from mlflow_quantgov.evidence.predicates.task_eval import Answer, TaskItem, TaskResult, is_likelihood

OUTPUT_BUDGET = 12_000_000
"""Characters of all answers in one statement; many items keep less of each."""
ALL_EQUAL = "All answers are equal on both sides: was the quantization engaged? Fidelity on 1,000 tokens would tell."
_TYPES = ("generate_until", "loglikelihood", "multiple_choice")


def pair(
    parent: TaskRun,
    quantized: TaskRun,
    *,
    digest: str,
    capability: str | None,
    metric: str | None = None,
    imported: bool = False,
    items_in_all: int | None = None,
    again: TaskRun | None = None,
) -> TaskResult:
    """Put both sides' answers to the same questions together.

    Args:
        parent: The parent's answers.
        quantized: The quantized version's answers.
        digest: Digest of the task's files.
        capability: What the task stands for; None gates nothing.
        metric: The metric to take; None for the first that is per item, finite and no perplexity.
        imported: Whether the answers were made elsewhere.
        items_in_all: Items of all tasks of the statement, which share the room for answers.
        again: The parent's answers to some of the items when it was asked a second time.

    Raises:
        UsageError: The task has no items or no usable metric.
        EvidenceError: The sides were not asked the same questions, or a side answered nothing at all.
    """
    for side, run in (("parent", parent), ("quantized version", quantized)):
        _require_answers(side, run)
    right = {one.number: one for one in quantized.samples}
    if [(one.number, one.prompt) for one in parent.samples] != [(one.number, one.prompt) for one in quantized.samples]:
        raise EvidenceError(
            f"The two sides were not asked the same questions in {parent.task}.",
            why="Only items that both sides answered to the very same prompt can be compared; a changed chat template "
            "changes the prompt.",
            fix="give the quantized model its parent's own chat template, and run the evaluation again",
        )
    odd = next((one for one in parent.samples if one.group != right[one.number].group), None)
    if odd is not None:
        raise EvidenceError(
            f"The item {(odd.name or str(odd.number))[:60]!r} of {parent.task} has another group on each side.",
            why="Items of one group count as one cluster.",
            fix="give an item the same group on both sides",
        )
    name, higher = _metric(parent, quantized, metric)
    room = room_for(items_in_all or len(parent.samples))
    names = _ids(parent.samples)
    repeated = {one.number: one for one in again.samples} if again is not None else {}
    return TaskResult(
        task=parent.task,
        task_digest=digest,
        capability=capability,
        metric=name,
        higher_is_better=higher,
        output_type=_output_type(parent, imported),
        few_shot=parent.few_shot,
        items=tuple(
            TaskItem(
                id=names[one.number],
                group=one.group,
                choices=one.choices,
                prompt_sha256=one.prompt,
                parent=answer_of(one, name, higher, room),
                quantized=answer_of(right[one.number], name, higher, room),
                parent_again=_score(repeated[one.number], name, higher) if one.number in repeated else None,
            )
            for one in parent.samples
        ),
    )


def room_for(items_in_all: int) -> int:
    """Characters that are kept of each answer in a statement of so many items."""
    return min(MAX_OUTPUT, OUTPUT_BUDGET // (2 * max(1, items_in_all)))


def all_equal(task: TaskResult) -> bool:
    """Whether both sides gave the very same answer to every item."""
    return all(
        (one.parent.output, one.parent.logprobs) == (one.quantized.output, one.quantized.logprobs) for one in task.items
    )


def _require_answers(side: str, run: TaskRun) -> None:
    if not run.samples:
        raise UsageError(f"The task {run.task} has no items.", why="Nothing was measured.", fix="give the task items")
    if all(one.output is not None and not one.output.strip() for one in run.samples):
        raise EvidenceError(
            f"The {side} answered nothing to all {len(run.samples)} items of {run.task}.",
            why="A model that is silent was not evaluated; nothing was attached.",
            fix="load it with mlflow_quantgov.load_model and look at an answer; check `until` in the task",
        )


def _ids(samples: Sequence[Sample]) -> dict[int, str]:
    """The items' own names where each has one of its own, else their numbers."""
    names = [one.name for one in samples if one.name]
    if len(set(names)) == len(samples):
        return {one.number: cast("str", one.name) for one in samples}
    return {one.number: str(one.number) for one in samples}


def _metric(parent: TaskRun, quantized: TaskRun, wanted: str | None) -> tuple[str, bool]:
    """The metric that was asked for (`name` or `name,filter`), else the first usable one, with its direction."""
    directions = {str(name): bool(higher) for name, higher in parent.metrics}
    usable = set.intersection(*(set(one.scores) for one in (*parent.samples, *quantized.samples)))
    if wanted is not None:
        plain = wanted.split(",")[0]
        if wanted in usable and plain in directions:
            return wanted, directions[plain]
    else:
        for name, higher in directions.items():
            if name in usable and not is_likelihood(name):
                return name, higher
    listed = ", ".join(sorted(name for name in usable if "," not in name)) or "none"
    missing = f"no usable metric {wanted!r}" if wanted else "no usable metric"
    raise UsageError(
        f"The task {parent.task} has {missing} (per item and finite: {listed}).",
        why="A verdict needs one finite number per item, and no perplexity.",
        fix=f"list a per-item metric in the task, or give --metric {parent.task}=NAME",
    )


def _output_type(
    run: TaskRun, imported: bool
) -> Literal["generate_until", "loglikelihood", "multiple_choice", "imported"]:
    if run.output_type in _TYPES:
        return cast("Literal['generate_until', 'loglikelihood', 'multiple_choice']", run.output_type)
    if imported:
        return "imported"
    raise UsageError(
        f"The task {run.task} measures {run.output_type}, which is a perplexity.",
        why="Perplexity is reported and never suffices.",
        fix="quantgov fidelity URI --text FILE",
    )


def _score(sample: Sample, metric: str, higher: bool) -> float | None:
    """None where that metric was not finite the second time."""
    score = sample.scores.get(metric)
    return None if score is None else score if higher else -score


def answer_of(sample: Sample, metric: str, higher: bool, room: int) -> Answer:
    """What a statement keeps of one side's answer.

    Args:
        sample: The answered item; it has to have that metric.
        metric: The metric that counts.
        higher: Whether higher is better; else the score is negated.
        room: Characters that are kept of a text.
    """
    score = sample.scores[metric]
    return Answer(
        score=score if higher else -score,
        output=sample.output[:room] if sample.output is not None else None,
        logprobs=tuple(sample.logprobs) if sample.logprobs is not None else None,
    )

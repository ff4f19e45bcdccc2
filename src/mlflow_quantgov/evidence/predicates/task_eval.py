"""Task evaluation of parent and quantized version, item by item."""

from __future__ import annotations

import re
from itertools import pairwise
from statistics import fmean
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Digest, Finite, Predicate, Record, ShortText, Side

_LIKELIHOODS = frozenset(
    {
        "perplexity", "ppl", "nll", "likelihood", "loglikelihood", "logprob", "logprobs", "logp", "entropy", "crossentropy",
        "xent", "surprisal", "bpb", "bpc", "bpw", "bpt", "lm_loss", "ce_loss", "eval_loss", "token_loss",
    }
)  # fmt: skip
_PER_UNIT = ("_per_byte", "_per_token", "_per_word", "bits_per_char", "bits_per_character", "likelihood", "nll")


def is_likelihood(metric: str) -> bool:
    """Whether a metric says by its name that it scores how likely a text is, which is a perplexity.

    Args:
        metric: `name` or `name,filter`, as lm-eval writes it.
    """
    name = metric.partition(",")[0].lower()
    words = [one for one in re.split(r"[^a-z]+", name) if one]
    pairs = {f"{one}_{other}" for one, other in pairwise(words)}
    return name == "loss" or name.endswith(_PER_UNIT) or not _LIKELIHOODS.isdisjoint({*words, *pairs})


class Answer(Record):
    """What one side answered to one item."""

    score: Finite
    """Higher is better; a metric where lower is better is stored negated."""
    output: str | None = Field(None, max_length=20_000)
    """Generated text, for tasks that generate."""
    logprobs: tuple[Finite, ...] | None = None
    """Log-probability of each choice or continuation, for tasks that score."""


class AnsweredItem(Record):
    """What was asked, and what both sides answered to it."""

    id: ShortText
    group: ShortText | None = None
    """Items of one group (a passage, a template) are one cluster."""
    choices: int | None = Field(None, ge=1)
    """Answers that it offers; None where it is no multiple choice, or nobody wrote it down."""
    prompt_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    parent: Answer
    quantized: Answer


class TaskItem(AnsweredItem):
    """One item of a task, as an evaluation records it."""

    parent_again: Finite | None = None
    """The parent's score when it was asked a second time; None where it was asked once."""


class TaskResult(Record):
    """One task on both sides."""

    task: ShortText
    task_digest: Digest
    """Digest over the task's configuration, code and data files."""
    capability: ShortText | None
    """None: reported, and gates nothing."""
    metric: ShortText
    higher_is_better: bool
    output_type: Literal["generate_until", "loglikelihood", "multiple_choice", "imported"]
    few_shot: int = Field(0, ge=0)
    items: tuple[TaskItem, ...] = Field(min_length=1, max_length=MAX_ITEMS)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        if len({item.id for item in self.items}) != len(self.items):
            raise ValueError(f"task {self.task!r} names an item twice")
        return self


class TaskEval(Predicate):
    """Scores of both sides on the same items, under the same settings."""

    KIND: ClassVar[str] = "task-eval"

    parent: Side
    quantized: Side
    settings: dict[str, Any]
    """Seed, batch, chat template, greedy or not: what was equal on both sides."""
    tasks: tuple[TaskResult, ...] = Field(min_length=1, max_length=1000)
    warnings: tuple[ShortText, ...] = ()
    summary: dict[str, Any]
    """Task name to counts and means, as `recompute` gives them."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if sum(len(task.items) for task in self.tasks) > MAX_ITEMS:
            raise ValueError(f"more than {MAX_ITEMS:,} items")
        if len({task.task for task in self.tasks}) != len(self.tasks):
            raise ValueError("a task is named twice")
        return self

    def recompute(self) -> dict[str, Any]:
        """Means of both sides, flips and equal answers, per task."""
        return {task.task: summarize_task(task) for task in self.tasks}


def summarize_task(task: TaskResult) -> dict[str, Any]:
    """Counts and means of one task, computed from its items."""
    parent = [item.parent.score for item in task.items]
    quantized = [item.quantized.score for item in task.items]
    found = {
        "capability": task.capability,
        "metric": task.metric,
        "items": len(task.items),
        "parent_mean": fmean(parent),
        "quantized_mean": fmean(quantized),
        "lost": sum(q < p for p, q in zip(parent, quantized, strict=True)),
        "gained": sum(q > p for p, q in zip(parent, quantized, strict=True)),
        "identical_answers": sum(
            item.parent.output == item.quantized.output and item.parent.logprobs == item.quantized.logprobs
            for item in task.items
        ),
    }
    again = [(item.parent.score, item.parent_again) for item in task.items if item.parent_again is not None]
    if again:
        found |= {"asked_twice": len(again), "parent_flips": sum(first != second for first, second in again)}
    return found

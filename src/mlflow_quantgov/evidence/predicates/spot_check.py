"""Random items of a task evaluation, measured again by somebody from the bytes: each as it was recorded and as it came out now."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Digest, Finite, Predicate, Record, ShortText, Side
from mlflow_quantgov.evidence.predicates.spot_check_summary import summarize
from mlflow_quantgov.evidence.predicates.task_eval import AnsweredItem, TaskItem, TaskResult


class Tolerance(Record):
    """How far one side's answers may be from the recorded ones."""

    exact: bool
    """Whether it ran as recorded, in a runtime that repeats itself: then answers have to be equal."""
    share: Finite | None = Field(None, ge=0, le=1)
    """Share of items whose score may differ otherwise; None where nobody can say."""
    logprob: Finite = Field(ge=0)
    """Log-probabilities that differ by less (nats, and as a share of them) are equal: they depend on their neighbours in a batch."""
    why: ShortText
    """What differs from how it was recorded, or that nothing does."""


class Shape(Record):
    """What a task is, beside its items."""

    output_type: ShortText
    few_shot: int = Field(ge=0)
    higher_is_better: bool
    items: int = Field(ge=0)

    @classmethod
    def of(cls, task: TaskResult) -> Self:
        """Of a task as an evaluation records it."""
        return cls(
            output_type=task.output_type,
            few_shot=task.few_shot,
            higher_is_better=task.higher_is_better,
            items=len(task.items),
        )


class CheckedTask(Record):
    """A task of the evaluation, as it was recorded and as the same files give it."""

    task: ShortText
    recorded: Shape
    again: Shape | None = None
    """None where no item of it was drawn, or nothing was measured."""


class Again(AnsweredItem):
    """What stands at an item's place in the task's files, and what both sides answered to it now."""

    in_batch: bool = False
    """Whether it was asked once more among the neighbours that it had when it was recorded."""


class CheckedItem(Record):
    """One drawn item."""

    task: ShortText
    number: int = Field(ge=0)
    """Its place in the records of that task."""
    recorded: TaskItem
    again: Again


class SpotCheck(Predicate):
    """Random items of a task evaluation, drawn after it was attached and measured again from the archived bytes."""

    KIND: ClassVar[str] = "spot-check"

    evaluation: Digest
    """Digest of the task evaluation's statement."""
    drawn_by: Literal["gate", "checker"]
    """`checker`: nothing was gated, so whoever checked drew as often as they liked."""
    seed: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Gives the order in which items are drawn."""
    asked_for: int = Field(ge=1, le=MAX_ITEMS)
    """Items that were to be drawn."""
    parent: Side | None = None
    quantized: Side | None = None
    parent_tolerance: Tolerance | None = None
    quantized_tolerance: Tolerance | None = None
    asked_alike: bool = False
    """Whether the libraries that make prompts are those of the evaluation; then equal files give equal prompts."""
    machine: dict[str, Any] = Field(default_factory=dict)
    """Processor that measured again."""
    store: ShortText | None = None
    """URL of the archive that the parent came from, without credentials."""
    manifest_digest: Digest | None = None
    tasks: tuple[CheckedTask, ...] = Field(min_length=1, max_length=1000)
    items: tuple[CheckedItem, ...] = Field((), max_length=MAX_ITEMS)
    problem: ShortText | None = None
    """Why nothing could be measured again."""
    warnings: tuple[ShortText, ...] = ()
    summary: dict[str, Any]
    """As `recompute` gives it."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        sides = (self.parent, self.quantized, self.parent_tolerance, self.quantized_tolerance)
        if (self.problem is None) != bool(self.items) or (self.items and None in sides):
            raise ValueError("it holds items of both sides, or the problem why there are none")
        if len({(one.task, one.number) for one in self.items}) != len(self.items):
            raise ValueError("an item stands twice")
        if len({one.task for one in self.tasks}) != len(self.tasks):
            raise ValueError("a task stands twice")
        return self

    @property
    def of(self) -> int:
        """Items of the whole evaluation."""
        return sum(one.recorded.items for one in self.tasks)

    def recompute(self) -> dict[str, Any]:
        """`pass`, `fail` or `inconclusive`, with what differs and how likely a forgery would have stayed hidden."""
        return summarize(self)

"""Before anything runs: how many items each capability takes to pass, and whether there are enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.predicates import TaskEval, TaskItem
from mlflow_quantgov.evidence.statistics import Expected, expect, expect_as_pilot, plan, power_at
from mlflow_quantgov.policy.checks.clusters import clusters_of
from mlflow_quantgov.policy.schema import Capability, Gate

POWER = 0.8
_FEW = 5
"""With fewer items that differ, a pilot says how rare they are and nothing of how they lie."""


class Counted(Protocol):
    """What is known of a task before it runs."""

    @property
    def task(self) -> str:
        """Its name."""

    @property
    def capability(self) -> str | None:
        """What it says that it measures."""

    @property
    def chooses(self) -> bool:
        """Whether it only scores choices."""

    @property
    def items(self) -> int:
        """Items that it holds."""

    @property
    def clusters(self) -> int:
        """Clusters that they lie in."""


@dataclass(frozen=True)
class Need:
    """What one capability needs, and has."""

    capability: str
    margin: float
    confidence: float
    discordance: float
    """Share of items whose score is expected to differ."""
    assumed_from: Literal["pilot", "stated", "policy"]
    items: int
    """Items of the tasks that may carry it."""
    clusters: int
    items_needed: int | None
    """For a pass with a power of 80 %, if nothing is lost on the whole; None where no number is enough."""
    power: float
    """Chance of a pass with the items that there are, if nothing is lost on the whole."""
    enough: bool
    tasks: tuple[str, ...]
    not_counted: tuple[str, ...]
    """Tasks that only score choices: they may show a loss, and never its absence."""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def needs(
    gate: Gate, tasks: Sequence[Counted], pilot: TaskEval | None = None, discordance: float | None = None
) -> list[Need]:
    """What every capability of a gate needs.

    Args:
        gate: Which capabilities must hold, and how strictly.
        tasks: What there is to run.
        pilot: Both sides' answers to some of the items.
        discordance: Share of items whose score is expected to differ; None for the pilot's, else the policy's.

    Raises:
        UsageError: The discordance is not above 0 and at most 1.
    """
    if discordance is not None and not 0 < discordance <= 1:
        raise UsageError(
            f"The discordance {discordance!r} is not above 0 and at most 1.",
            why="It is the share of items whose score is expected to differ.",
            fix="--discordance 0.1, or measure it: --pilot 20",
        )
    return [
        _need(name, wanted, _of(name, wanted, tasks), gate.scored_only, pilot, discordance)
        for name, wanted in gate.capabilities.items()
    ]


def _of(name: str, wanted: Capability, tasks: Sequence[Counted]) -> list[Counted]:
    if wanted.tasks:
        names = {one.task for one in wanted.tasks}
        return [one for one in tasks if one.task in names]
    return [one for one in tasks if one.capability == name]


def _need(
    name: str,
    wanted: Capability,
    mine: list[Counted],
    scored_only: bool,
    pilot: TaskEval | None,
    discordance: float | None,
) -> Need:
    carrying = [one for one in mine if scored_only or not one.chooses]
    items, clusters = sum(one.items for one in carrying), sum(one.clusters for one in carrying)
    size = max(1, round(items / clusters)) if clusters else 1
    expected, source = _expected(wanted, [one.task for one in carrying], size, pilot, discordance)
    note, needed = "", None
    try:
        needed = max(plan(wanted.margin, expected, wanted.confidence, POWER).items, wanted.min_items)
    except UsageError as error:
        note = error.what
    absent = [one.task for one in wanted.tasks if one.task not in {two.task for two in mine}]
    if absent:
        note = f"missing: {', '.join(absent)}"
    elif not mine:
        note = f"missing: no task measures it (metadata.capability, or --capability TASK={name})"
    elif not carrying:
        note = "missing: multiple choice alone, which barely moves when a model breaks"
    return Need(
        capability=name,
        margin=wanted.margin,
        confidence=wanted.confidence,
        discordance=expected.lost + expected.gained,
        assumed_from=source,
        items=items,
        clusters=clusters,
        items_needed=needed,
        power=power_at(items, wanted.margin, expected, wanted.confidence) if items >= wanted.min_items else 0.0,
        enough=needed is not None and items >= needed and not absent,
        tasks=tuple(one.task for one in carrying),
        not_counted=tuple(one.task for one in mine if one not in carrying),
        note=note,
    )


def _expected(
    wanted: Capability, tasks: list[str], size: int, pilot: TaskEval | None, discordance: float | None
) -> tuple[Expected, Literal["pilot", "stated", "policy"]]:
    low, high = wanted.score_range
    span = high - low
    if discordance is not None:
        return expect(discordance, cluster_size=size, span=span), "stated"
    answered = [one for one in pilot.tasks if one.task in tasks] if pilot is not None else []
    if not answered:
        return expect(wanted.discordance, cluster_size=size, span=span), "policy"
    differences = [_difference(item) for one in answered for item in one.items]
    groups = [f"{one.task}/{cluster}" for one in answered for cluster in clusters_of(one.items)]
    differing = sum(one != 0 for one in differences)
    if differing >= _FEW:
        return expect_as_pilot(differences, groups, difference=0.0, span=span), "pilot"
    # A pilot in which nothing differs does not say that nothing ever will: one more item of each kind is added.
    return expect((differing + 1) / (len(differences) + 2), cluster_size=size, span=span), "pilot"


def _difference(item: TaskItem) -> float:
    return item.quantized.score - item.parent.score

"""Before a task evaluation: is there enough to show that nothing was lost, and how long will it take?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.api.evaluating import policy_in_force, run_pilot
from mlflow_quantgov.errors import PolicyError
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.flavor.download import local_model
from mlflow_quantgov.policy.items_needed import Need, needs
from mlflow_quantgov.policy.matching import gate_for, gated_destinations
from mlflow_quantgov.policy.schema import Gate, Policy
from mlflow_quantgov.versions import registered


@dataclass(frozen=True)
class EvaluationPlan:
    """What a task evaluation would need, and cost."""

    destination: str
    policy: str
    """Name of the policy whose margins count."""
    capabilities: tuple[Need, ...]
    items: int
    """Items of all tasks, each answered by both sides."""
    minutes: float | None
    """For all items on both sides, as the pilot took; None without a pilot."""
    pilot_items: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "destination": self.destination,
            "policy": self.policy,
            "enough": self.enough,
            "items": self.items,
            "minutes": self.minutes,
            "pilot_items": self.pilot_items,
            "capabilities": [one.to_dict() for one in self.capabilities],
        }

    @property
    def enough(self) -> bool:
        """Whether every capability has the items that it needs."""
        return all(one.enough for one in self.capabilities)


def plan_evaluation(
    uri: str,
    tasks: str | Path | Sequence[str],
    *,
    to: str | None = None,
    pilot: int | None = None,
    discordance: float | None = None,
    runtime: str | None = None,
    capabilities: dict[str, str] | None = None,
    metrics: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    served: tuple[str | Path | None, str | Path | None] | None = None,
    progress: Progress | None = None,
) -> EvaluationPlan:
    """How many items each capability needs at the policy's margin, and whether the tasks hold them. Nothing is attached.

    Args:
        uri: The quantized version, `models:/NAME/VERSION`.
        tasks: Folder of lm-eval task YAML, or names of tasks that lm-eval ships.
        to: Destination whose gate is planned for; None for the first that demands capabilities.
        pilot: Items of each task to run on both sides: how often scores differ, and how long an item takes; None runs
            nothing.
        discordance: Share of items whose score is expected to differ; None for the pilot's, else the policy's.
        runtime: As for `evaluate`, for the pilot.
        capabilities: Task name to capability, for tasks that do not say.
        metrics: As for `evaluate`, for the pilot.
        settings: As for `evaluate`, for the pilot.
        served: As for `evaluate`, for the pilot.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        PolicyError: The policy demands no capability there.
        UsageError: The folder does not exist or holds no tasks, or the discordance is impossible.
    """
    from mlflow_quantgov.evidence.measure.lm_eval_adapter import check_installed
    from mlflow_quantgov.evidence.measure.shipped_tasks import find_tasks
    from mlflow_quantgov.evidence.measure.task_counts import count_task
    from mlflow_quantgov.evidence.measure.tasks import check_names

    source = Path(tasks) if isinstance(tasks, str | Path) else list(tasks)
    name, _ = registered(local_model(uri))
    policy = policy_in_force()
    destination, gate = _gate(policy, name, to)
    check_installed(online=not isinstance(source, Path))
    found, _ = find_tasks(source)
    check_names(found, capabilities or {}, "--capability")
    counts = [count_task(one, capabilities or {}) for one in found]
    answers: TaskEval | None = None
    seconds: dict[str, float] = {}
    if pilot is not None:
        answers = run_pilot(
            uri,
            source,
            seconds,
            limit=pilot,
            runtime=runtime,
            capabilities=capabilities,
            metrics=metrics,
            settings=settings,
            served=served,
            progress=progress,
        )
    asked = {one.task: len(one.items) for one in answers.tasks} if answers is not None else {}
    minutes = sum(seconds[one.task] / asked[one.task] * one.items for one in counts) / 60 if asked else None
    return EvaluationPlan(
        destination=destination,
        policy=policy.name,
        capabilities=tuple(needs(gate, counts, answers, discordance)),
        items=sum(one.items for one in counts),
        minutes=minutes,
        pilot_items=sum(asked.values()),
    )


def _gate(policy: Policy, name: str, to: str | None) -> tuple[str, Gate]:
    """The gate to plan for."""
    for destination in [to] if to is not None else gated_destinations(policy, name):
        gate = gate_for(policy, name, destination)
        if gate is not None and gate.capabilities:
            return destination, gate
    raise PolicyError(
        f"The policy {policy.name} demands no capability of {name}{f' at {to}' if to else ''}.",
        why="Without a margin nobody can say how many items are enough.",
        fix=f"use one of {', '.join(gated_destinations(policy, name)) or 'the destinations that the policy gates'} with --to",
    )

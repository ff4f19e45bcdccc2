"""How many items and clusters tasks hold, without a model."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_quantgov.evidence.measure.lm_eval_adapter import documents
from mlflow_quantgov.evidence.measure.tasks import TaskFile, capability_of


@dataclass(frozen=True)
class TaskCount:
    """What one task holds."""

    task: str
    capability: str | None
    chooses: bool
    """Whether it only scores choices."""
    items: int
    clusters: int


def count_task(task: TaskFile, capabilities: dict[str, str]) -> TaskCount:
    """Count the items of a task, and the clusters that `metadata.group_by` names.

    Raises:
        MissingExtraError: lm-eval is not installed.
        UsageError: The task does not load, or has no items.
    """
    found = documents(task)
    clusters = len(found)
    if task.group_by is not None:
        clusters = len({str(one[task.group_by]) for one in found if isinstance(one, dict) and task.group_by in one})
    chooses = task.config.get("output_type") == "multiple_choice"
    return TaskCount(task.name, capability_of(task, capabilities), chooses, len(found), max(1, clusters))

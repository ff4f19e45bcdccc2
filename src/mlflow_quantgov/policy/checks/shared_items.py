"""Whether two capabilities rest on the very same items: one task under two names shows one thing, not two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

from mlflow_quantgov.evidence.predicates import TaskResult
from mlflow_quantgov.policy.schema import Capability

MOST = 0.5
"""Share of the items of the capability with fewer that another one may ask too, by the same metric."""


def shared_items(capabilities: Mapping[str, Capability], tasks: Mapping[str, TaskResult]) -> str:
    """In words, which two capabilities were measured by the same items; empty where each has its own.

    The same prompts may be scored by two metrics, one for each capability. A policy that names the tasks of a capability
    itself knows what it names, and is not asked about.

    Args:
        capabilities: What a gate demands.
        tasks: Results by the names of their tasks.
    """
    mine = {
        name: [one for one in tasks.values() if one.capability == name]
        for name, wanted in capabilities.items()
        if not wanted.tasks
    }
    for one, other in combinations(mine, 2):
        left, right = _asked(mine[one]), _asked(mine[other])
        fewer = min(len(left), len(right))
        if fewer and len(left & right) > MOST * fewer:
            names = " and ".join(dict.fromkeys(task.task for name in (one, other) for task in mine[name]))
            return (
                f"{one} and {other} were measured by the same items ({len(left & right)} of {fewer}, in {names}), and one task "
                "under two names shows one thing"
            )
    return ""


def _asked(tasks: Iterable[TaskResult]) -> set[tuple[str, str]]:
    """What was asked, and by which metric it was scored."""
    return {(task.metric, item.prompt_sha256) for task in tasks for item in task.items}

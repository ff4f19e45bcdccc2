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
        fewer = min(len(_asked(mine[name])) for name in (one, other))
        shared = max(_shared(mine[one], mine[other]), _scored_alike(mine[one], mine[other]))
        if fewer and shared > MOST * fewer:
            names = " and ".join(dict.fromkeys(task.task for name in (one, other) for task in mine[name]))
            return (
                f"{one} and {other} were measured by the same items ({shared} of {fewer}, in {names}), and one task under two "
                "names shows one thing"
            )
    return ""


def _shared(left: Iterable[TaskResult], right: Iterable[TaskResult]) -> int:
    """How many items two capabilities have in common, by the same metric."""
    return len(_asked(left) & _asked(right))


def _scored_alike(left: Iterable[TaskResult], right: Iterable[TaskResult]) -> int:
    """How many prompts they have in common, where not one of them is scored otherwise: then two metrics are one by two names.

    Where all items have the same score, any two metrics agree, and nothing follows.
    """
    found = [
        {(item.prompt_sha256, item.parent.score, item.quantized.score) for task in tasks for item in task.items}
        for tasks in (left, right)
    ]
    both = set.intersection(*({one[0] for one in scored} for scored in found))
    first, second = ({one for one in scored if one[0] in both} for scored in found)
    return len(both) if first == second and len({one[1:] for one in first}) > 1 else 0


def _asked(tasks: Iterable[TaskResult]) -> set[tuple[str, str]]:
    """What was asked, and by which metric it was scored."""
    return {(task.metric, item.prompt_sha256) for task in tasks for item in task.items}

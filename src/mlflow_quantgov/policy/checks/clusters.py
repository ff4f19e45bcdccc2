"""Which items of a task are independent."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_quantgov.evidence.predicates import TaskItem


def clusters_of(items: Sequence[TaskItem]) -> list[int]:
    """Number of each item's cluster: items of one group, and items that ask the very same, are one.

    A prompt that is asked twice is no second piece of evidence, whatever the items call themselves.

    Args:
        items: Items of one task.

    Returns:
        A number per item, equal within a cluster.
    """
    root = list(range(len(items)))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, item in enumerate(items):
        for key in (("prompt", item.prompt_sha256), ("group", item.group)):
            if key[1] is not None:
                root[find(index)] = find(first.setdefault((key[0], key[1]), index))
    return [find(index) for index in range(len(items))]

"""Tasks by what names them: a folder of one's own, or the names of tasks that lm-eval ships."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError, require
from mlflow_quantgov.evidence.measure.lm_eval_adapter import PURPOSE, documents, quiet
from mlflow_quantgov.evidence.measure.tasks import TaskFile, folder_digest, load_tasks, read_afresh, read_task

MAX_TASKS = 200
"""Most tasks behind the names; a group of lm-eval may hold thousands."""


def find_tasks(source: Path | Sequence[str]) -> tuple[list[TaskFile], str]:
    """The tasks, and the digest of those that have none of their own.

    Args:
        source: A folder of lm-eval YAML, or names of tasks, groups or tags that lm-eval ships.

    Raises:
        UsageError: The folder or a name does not exist, or the data of a shipped task cannot be had.
        MissingExtraError: lm-eval is not installed.
    """
    if isinstance(source, Path):
        return load_tasks(source), folder_digest(source)
    tasks = [_with_digest(task) for task in shipped_tasks(source)]
    together = hashlib.sha256("".join(str(task.digest) for task in tasks).encode()).hexdigest()
    return tasks, f"sha256:{together}"


def shipped_tasks(names: Sequence[str]) -> list[TaskFile]:
    """Tasks of lm-eval's own registry, groups and tags taken apart, in the order of their names.

    Raises:
        UsageError: lm-eval ships no task of that name, or one that it makes in Python alone.
    """
    with quiet():
        manager = require("lm_eval.tasks", extra="eval", purpose=PURPOSE).TaskManager()
    index: dict[str, Any] = manager.task_index
    found: dict[str, TaskFile] = {}
    for name in names:
        for path in _paths(name, index):
            task = read_task(path)
            if task is None:
                raise _unknown(name, f"lm-eval's task {name} is no single YAML file")
            read_afresh(task.config)
            found[task.name] = task
            if len(found) > MAX_TASKS:
                raise _unknown(name, f"{name} stands for more than {MAX_TASKS} tasks")
    return [found[name] for name in sorted(found)]


def _paths(name: str, index: dict[str, Any]) -> list[Path]:
    """YAML files behind a name."""
    entry = index.get(name)
    if entry is None:
        near = [one for one in sorted(index) if name.lower() in one.lower()][:10]
        raise _unknown(name, f"lm-eval ships no task {name!r}", f"use one of {', '.join(near)}" if near else "")
    config = entry.cfg if isinstance(entry.cfg, dict) else {}
    members = config.get("task") if entry.kind.name == "GROUP" else None
    if entry.kind.name == "TAG":
        members = sorted(entry.tags)
    if members is None:
        return [Path(entry.yaml_path)]
    if not isinstance(members, list) or not all(isinstance(one, str) for one in members):
        raise _unknown(name, f"lm-eval's group {name} changes its members")
    return [path for member in members for path in _paths(member, index)]


def _with_digest(task: TaskFile) -> TaskFile:
    """A digest over lm-eval's version, the task's configuration, its code and every item that it asks."""
    hasher = hashlib.sha256(f"lm-eval {metadata.version('lm-eval')}\0".encode())
    hasher.update(json.dumps(task.config, sort_keys=True, default=_plain).encode())
    for path in sorted(task.path.parent.glob("*.py")):
        hasher.update(f"\0{path.name}\0".encode() + path.read_bytes())
    for document in documents(task):
        hasher.update(json.dumps(document, sort_keys=True, default=str).encode() + b"\0")
    return replace(task, digest=f"sha256:{hasher.hexdigest()}")


def _plain(value: Any) -> str:
    """A function by its name, wherever lm-eval is installed."""
    return str(getattr(value, "name", value))


def _unknown(name: str, problem: str, fix: str = "") -> UsageError:
    return UsageError(
        f"{problem}.",
        why="What is not run is not measured.",
        fix=fix or "name single tasks, as `lm_eval ls tasks` lists them, or write a folder of your own for --tasks",
    )

"""A folder of lm-eval tasks: found, read, and known by a digest over configuration, code and data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlflow_quantgov.errors import UsageError

MAX_FILES = 1000
MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class TaskFile:
    """One task as its YAML says it."""

    name: str
    config: dict[str, Any]
    """As lm-eval takes it, with absolute paths of data files."""
    path: Path
    capability: str | None
    group_by: str | None
    """Field of the document whose value clusters items."""


class _Loader(yaml.SafeLoader):
    """Safe loader that keeps `!function module.name` as a mark; lm-eval resolves it when the task runs."""


@dataclass(frozen=True)
class _Function:
    name: str


_Loader.add_constructor("!function", lambda loader, node: _Function(str(loader.construct_scalar(node))))  # type: ignore[arg-type]


def load_tasks(folder: Path) -> list[TaskFile]:
    """Every task of a folder, in the order of their names.

    Raises:
        UsageError: The folder does not exist, or holds no task that can be read.
    """
    if not folder.is_dir():
        raise UsageError(
            f"The task folder {folder} does not exist.",
            why="Without the user's own tasks nobody can tell what the quantization has cost.",
            fix=f"ls {folder.parent}",
        )
    tasks = [task for path in sorted(folder.glob("*.yaml")) if (task := _read(path)) is not None]
    if not tasks:
        raise UsageError(
            f"The task folder {folder} holds no lm-eval task.",
            why="A task is a YAML file with `task:` and `doc_to_text:`.",
            fix=f"ls {folder}/*.yaml",
        )
    return tasks


def folder_digest(folder: Path) -> str:
    """`sha256:...` over path and content of every YAML, Python and data file of the folder."""
    hasher = hashlib.sha256()
    files = [one for one in sorted(folder.rglob("*")) if one.is_file() and "__pycache__" not in one.parts]
    if len(files) > MAX_FILES or sum(one.stat().st_size for one in files) > MAX_BYTES:
        raise UsageError(
            f"The task folder {folder} holds more than {MAX_FILES} files or {MAX_BYTES // 2**20} MB.",
            why="Its digest is part of the evidence.",
            fix="keep only the tasks and their data in it",
        )
    for path in files:
        hasher.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        hasher.update(path.read_bytes())
    return f"sha256:{hasher.hexdigest()}"


def load_functions(task: TaskFile) -> dict[str, Any]:
    """The task's configuration with `!function` marks replaced by the functions; this runs the folder's code.

    Raises:
        UsageError: A function does not exist.
    """
    return {key: _resolve(value, task.path.parent) for key, value in task.config.items()}


def _resolve(value: Any, folder: Path) -> Any:
    if isinstance(value, _Function):
        return _function(value.name, folder)
    if isinstance(value, dict):
        return {key: _resolve(one, folder) for key, one in value.items()}
    return [_resolve(one, folder) for one in value] if isinstance(value, list) else value


def _function(name: str, folder: Path) -> Any:
    import importlib.util

    module, _, attribute = name.rpartition(".")
    path = folder / f"{module}.py"
    spec = importlib.util.spec_from_file_location(f"quantgov_task_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"{path} does not exist.", why=f"A task names the function {name}.", fix=f"ls {folder}/*.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    if not hasattr(loaded, attribute):
        raise UsageError(f"{path.name} has no function {attribute}.", why="A task names it.", fix=f"grep def {path}")
    return getattr(loaded, attribute)


def _read(path: Path) -> TaskFile | None:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path.name} is no sound YAML: {' '.join(str(error).split())[:200]}.",
            why="A task that cannot be read is not run, and what is not run is not measured.",
            fix=f"correct {path}",
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        return None
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if files is not None:
        config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": _absolute(files, path.parent)}
    metadata = config.get("metadata") or {}
    return TaskFile(config["task"], config, path, metadata.get("capability"), metadata.get("group_by"))


def _absolute(files: Any, folder: Path) -> Any:
    """Data files relative to the task's folder, where lm-eval would take the working directory."""
    if isinstance(files, dict):
        return {key: _absolute(value, folder) for key, value in files.items()}
    if isinstance(files, list):
        return [_absolute(value, folder) for value in files]
    path = folder / str(files)
    if not path.is_file():
        raise UsageError(f"The data file {path} does not exist.", why="A task names it.", fix=f"ls {path.parent}")
    return str(path.resolve())

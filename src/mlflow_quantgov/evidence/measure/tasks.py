"""A folder of lm-eval tasks: found, read, and known by a digest over configuration, code and data."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from mlflow_quantgov.errors import UsageError

MAX_FILES = 1000
MAX_BYTES = 256 * 1024 * 1024
MAX_YAML_BYTES = 1_000_000
MAX_INCLUDES = 8
"""Depth to which `include:` is followed; more is a circle."""


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
    digest: str | None = None
    """Its own digest; None where the digest of the folder stands for it."""


@dataclass(frozen=True)
class FunctionMark:
    """`!function module.name`, not loaded yet: reading a task runs no code."""

    name: str
    folder: Path
    """Where the YAML lies that names it."""


def load_tasks(folder: Path) -> list[TaskFile]:
    """Every task of a folder, in the order of their names. No code of the folder runs.

    A YAML file without `task:` is taken for a part that others include; a group that only lists tasks is left out,
    since its members are found by themselves.

    Raises:
        UsageError: The folder does not exist, holds no task, names a task twice, or a file cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(
            f"The task folder {folder} {'is no folder' if folder.exists() else 'does not exist'}.",
            why="Without the user's own tasks nobody can tell what the quantization has cost.",
            fix=f"ls {folder.parent}",
        )
    found: dict[str, TaskFile] = {}
    for path in _files(folder):
        task = read_task(path) if path.suffix in {".yaml", ".yml"} else None
        if task is None:
            continue
        if task.name in found:
            raise _bad(path, f"the task {task.name} is also in {found[task.name].path.name}")
        found[task.name] = task
    if not found:
        raise UsageError(
            f"The task folder {folder} holds no lm-eval task.",
            why="A task is a YAML file with `task:` and `doc_to_text:`.",
            fix=f"ls {folder}/*.yaml",
        )
    return [found[name] for name in sorted(found)]


def folder_digest(folder: Path) -> str:
    """`sha256:...` over path and content of the folder's configuration, code and data (no notes, no hidden files).

    Raises:
        UsageError: The folder holds too many files or bytes.
    """
    hasher = hashlib.sha256()
    for path in _files(folder):
        hasher.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        hasher.update(path.read_bytes())
    return f"sha256:{hasher.hexdigest()}"


def read_task(path: Path) -> TaskFile | None:
    """The task of one YAML file; None for a group of names, or a part that others include.

    Raises:
        UsageError: It cannot be read.
    """
    config = _read(path, MAX_INCLUDES)
    name = config.get("task")
    if isinstance(name, list):
        if all(isinstance(member, str) for member in name):
            return None
        raise _bad(path, "the group defines tasks inside itself, which are not run")
    if not isinstance(name, str):
        return None
    if not name or len(name) > 200:
        raise _bad(path, "the task's name is empty or longer than 200 characters")
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise _bad(path, "`metadata` is no mapping")
    for key in ("capability", "group_by"):
        if metadata.get(key) is not None and not isinstance(metadata[key], str):
            raise _bad(path, f"`metadata.{key}` is no text")
    return TaskFile(name, config, path, metadata.get("capability"), metadata.get("group_by"))


def load_functions(task: TaskFile) -> dict[str, Any]:
    """The task's configuration with `!function` marks replaced by the functions; this runs the folder's code.

    Raises:
        UsageError: A function does not exist, or its file does not run.
    """
    modules: dict[Path, ModuleType] = {}
    return {key: _resolve(value, modules) for key, value in task.config.items()}


def capability_of(task: TaskFile, given: dict[str, str]) -> str | None:
    """The capability of a task: what was given for it, else its own metadata's; None gates nothing."""
    return given.get(task.name, task.capability)


def check_names(tasks: list[TaskFile], given: dict[str, str], option: str) -> None:
    """Refuse a `TASK=NAME` whose task is not there: a misspelt one would silently do nothing.

    Raises:
        UsageError: A name is unknown.
    """
    known = [task.name for task in tasks]
    for name in given:
        if name not in known:
            raise UsageError(
                f"{option} names the task {name!r}, which is none of those to run.",
                why="It would silently change nothing.",
                fix=f"use one of {', '.join(known[:20])}",
            )


def _files(folder: Path) -> list[Path]:
    """What the folder's digest covers, in the order of the paths."""
    files = []
    size = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if (
            not path.is_file()
            or path.suffix == ".md"
            or any(one.startswith(".") or one == "__pycache__" for one in parts)
        ):
            continue
        files.append(path)
        size += path.stat().st_size
        if len(files) > MAX_FILES or size > MAX_BYTES:
            raise UsageError(
                f"The task folder {folder} holds more than {MAX_FILES} files or {MAX_BYTES // 2**20} MB.",
                why="Its digest is part of the evidence.",
                fix="keep only the tasks and their data in it",
            )
    return files


def _read(path: Path, depth: int) -> dict[str, Any]:
    """A YAML file with what it includes; its own keys win."""
    if not depth:
        raise _bad(path, "its `include:` goes in a circle")
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise _bad(path, f"it is larger than {MAX_YAML_BYTES:,} bytes")
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader(path.parent))  # noqa: S506  (a SafeLoader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _bad(path, f"it is no sound YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, dict):
        return {}
    _make_absolute(config, path.parent)
    included = config.pop("include", None)
    for one in reversed([included] if isinstance(included, str) else list(included or [])):
        config = _read(path.parent / str(one), depth - 1) | config
    return dict(config)


def _loader(folder: Path) -> type[yaml.SafeLoader]:
    """A safe loader that keeps `!function` as a mark."""

    class Loader(yaml.SafeLoader):
        """Safe loader of one folder's files."""

    def mark(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> FunctionMark:
        return FunctionMark(str(loader.construct_scalar(node)), folder)

    Loader.add_constructor("!function", mark)
    return Loader


def read_afresh(config: dict[str, Any]) -> None:
    """Have a data set that is a folder read anew: `datasets` knows it by its path and would give what it held before."""
    if Path(str(config.get("dataset_path"))).is_dir():
        # Sizes of what it held before are no reason to refuse what it holds now.
        afresh = {"download_mode": "force_redownload", "verification_mode": "no_checks"}
        config["dataset_kwargs"] = afresh | dict(config.get("dataset_kwargs") or {})


def _make_absolute(config: dict[str, Any], folder: Path) -> None:
    """Paths relative to the YAML's folder, where lm-eval would take the working directory."""
    path = config.get("dataset_path")
    if isinstance(path, str) and (folder / path).exists():
        config["dataset_path"] = str((folder / path).resolve())
        read_afresh(config)
    options = config.get("dataset_kwargs")
    if isinstance(options, dict):
        config["dataset_kwargs"] = options | {
            key: _absolute(value, folder) for key, value in options.items() if key in {"data_files", "data_dir"}
        }


def _absolute(files: Any, folder: Path) -> Any:
    if isinstance(files, dict):
        return {key: _absolute(value, folder) for key, value in files.items()}
    if isinstance(files, list):
        return [_absolute(value, folder) for value in files]
    path = folder / str(files)
    if not path.exists():
        raise UsageError(f"The data file {path} does not exist.", why="A task names it.", fix=f"ls {path.parent}")
    if path.is_file() and not path.stat().st_size:
        raise UsageError(f"The data file {path} holds no items.", why="A task names it.", fix=f"wc -l {path}")
    return str(path.resolve())


def _resolve(value: Any, modules: dict[Path, ModuleType]) -> Any:
    if isinstance(value, FunctionMark):
        return _function(value, modules)
    if isinstance(value, dict):
        return {key: _resolve(one, modules) for key, one in value.items()}
    return [_resolve(one, modules) for one in value] if isinstance(value, list) else value


def _function(mark: FunctionMark, modules: dict[Path, ModuleType]) -> Any:
    module, _, attribute = mark.name.rpartition(".")
    path = mark.folder / f"{module}.py"
    if path not in modules:
        modules[path] = _run(path)
    if not callable(getattr(modules[path], attribute, None)):
        raise UsageError(f"{path.name} has no function {attribute}.", why="A task names it.", fix=f"grep def {path}")
    return getattr(modules[path], attribute)


def _run(path: Path) -> ModuleType:
    name = f"quantgov_task_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"{path} does not exist.", why="A task names a function in it.", fix=f"ls {path.parent}/*.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _bad(path, f"its code does not run: {type(error).__name__}: {str(error)[:200]}") from error
    return module


def _bad(path: Path, problem: str) -> UsageError:
    return UsageError(
        f"{path.name}: {problem}.",
        why="A task that cannot be read is not run, and what is not run is not measured.",
        fix=f"correct {path}",
    )

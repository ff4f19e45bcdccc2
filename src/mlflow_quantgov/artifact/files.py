"""The files of an artifact: listed without following a link out of the folder, small JSON read within bounds."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import ArtifactError, nearest_folder

MAX_FILES = 100_000
MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_JSON_VALUES = 4_000_000


def list_files(source: Path) -> list[tuple[str, Path]]:
    """Every file of a folder, or the one file itself.

    Args:
        source: Folder or file.

    Returns:
        Pairs of relative path (forward slashes) and path, sorted by relative path.

    Raises:
        ArtifactError: Nothing there, too many files, a link that leads out of the folder or nowhere, a linked folder,
            a device or pipe, or a name that is not UTF-8.
    """
    try:
        if source.is_file():
            return [(_checked_name(source.name, source), source)]
        if source.exists() and not source.is_dir():
            raise ArtifactError(
                f"{source} is {_kind_of(source)}, neither a file nor a folder.",
                why="There is no model to read.",
                fix="quantgov inspect PATH of a folder with .safetensors, or of a .gguf or .onnx file",
            )
        if not source.is_dir():
            raise ArtifactError(
                f"{source} does not exist.", why="There is no model to read.", fix=f"ls {nearest_folder(source)}"
            )
        return sorted(_walk(source, source.resolve(), ""))
    except OSError as error:
        raise ArtifactError(
            f"{source} cannot be read: {error.strerror or error}.",
            why="There is no model to read.",
            fix=f"ls -l {source}",
        ) from error


def _kind_of(path: Path) -> str:
    mode = path.stat().st_mode
    known = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return known.get(stat.S_IFMT(mode), "something else")


def _walk(root: Path, home: Path, prefix: str) -> list[tuple[str, Path]]:
    """Files below a folder; folders are walked one after another, so that depth costs no recursion."""
    found: list[tuple[str, Path]] = []
    folders = [(prefix, root)]
    while folders:
        relative, folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = _checked_name(f"{relative}{entry.name}", root)
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{name}/", path))
                    continue
                _check_kind(name, path, root, home)
                found.append((name, path))
                if len(found) > MAX_FILES:
                    raise ArtifactError(
                        f"{root} holds more than {MAX_FILES:,} files.",
                        why="That is no model folder.",
                        fix="name the model's own folder",
                    )
    return found


def _check_kind(name: str, path: Path, root: Path, home: Path) -> None:
    link = path.is_symlink()
    target = path.resolve() if link else path
    if link and not target.is_relative_to(home):
        problem = "is a link that leads out of the folder"
    elif not target.exists():
        problem = "is a link that leads nowhere"
    elif not stat.S_ISREG(target.stat().st_mode):
        problem = "is a linked folder" if target.is_dir() else "is neither a file nor a folder"
    else:
        return
    raise ArtifactError(
        f"{name} {problem}.",
        why="What is inspected and logged has to be what lies in the folder.",
        fix=f"cp -rL {root} COPY, and use the copy",
    )


def _checked_name(name: str, root: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        name = ""
    if not name or "\\" in name or any(ord(letter) < 32 for letter in name):
        raise ArtifactError(
            f"{root.name} holds a file whose name is not plain UTF-8 text, or has a backslash or control character.",
            why="A manifest could not name it the same way on every system.",
            fix=f"rename it: ls -b {root}",
        )
    return name


def parse_json(text: bytes) -> Any:
    """Parse JSON within bounds of size, depth and number of values.

    Raises:
        ValueError: Not JSON, not UTF-8, a key twice, or larger than the bounds.
    """
    if len(text) > 2 * MAX_JSON_BYTES or sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_VALUES:
        raise ValueError("it is too large")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a small file; empty where there is no such file.

    Raises:
        ArtifactError: It cannot be read, is too large, or is no object.
    """
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("it is too large")
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path.parent.name}/{path.name} cannot be read: {str(error)[:100]}.",
            why="What a loader would do with the tensors stands in it.",
            fix="copy or download the folder again, then quantgov inspect PATH",
        ) from error
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in it")
    return result

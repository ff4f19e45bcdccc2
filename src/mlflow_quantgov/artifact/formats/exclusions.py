"""Modules that a config leaves unquantized, though the files hold them packed: a loader would make their weights up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.errors import ArtifactError

_LISTS = ("ignore", "modules_to_not_convert", "llm_int8_skip_modules", "ignored_layers", "exclude_modules")
"""Keys under which quantization configs list what stays as it was."""
_PATTERN = "re:"
_MOST_CHARACTERS = 300
_MOST_REPEATS = 4
_HOSTILE = re.compile(r"\)[*+{]|\(\?[^:]|\\[1-9]")
"""Repeated groups, assertions and back references: with them a pattern can take forever."""
_REPEAT = re.compile(r"(?<!\\)[*+{]")
_WILD = "*"
_MOST_LISTED = 20_000


def check_exclusions(files: ArtifactFiles, packed: Iterable[str]) -> None:
    """Refuse a config that leaves out a module whose packed tensors lie in the files.

    Args:
        files: The artifact.
        packed: Names of the quantized modules.

    Raises:
        ArtifactError: A module is excluded and packed, or a pattern is too involved to be run.
    """
    modules = sorted(set(packed))
    for place, entry in _entries(files):
        for name in modules:
            if _covers(files, place, entry, name):
                raise files.contradiction(
                    place,
                    f"that {name[:100]} is not quantized (by {entry[:100]!r})",
                    f"packed weights for {name[:100]}",
                )


def _entries(files: ArtifactFiles) -> Iterator[tuple[str, str]]:
    """File and entry of everything that is excluded; patterns begin with `re:`."""
    for place, claim in files.claims:
        for key in _LISTS:
            listed = claim.get(key)
            for entry in listed[:_MOST_LISTED] if isinstance(listed, list) else ():
                if isinstance(entry, str) and entry:
                    yield place, entry
        dynamic = claim.get("dynamic")
        for entry in list(dynamic)[:_MOST_LISTED] if isinstance(dynamic, dict) else ():
            # gptqmodel: `-:` excludes, `+:` and a bare pattern set anew.
            if entry.startswith("-:"):
                yield place, _PATTERN + entry.removeprefix("-:")


def _covers(files: ArtifactFiles, place: str, entry: str, name: str) -> bool:
    """As transformers and compressed-tensors match: a pattern from the start, else whole parts of the name."""
    if entry.startswith(_PATTERN):
        return _compiled(files, place, entry.removeprefix(_PATTERN)).match(name) is not None
    if _WILD in entry:
        parts = [re.escape(part) for part in entry.split(_WILD)]
        return len(parts) <= _MOST_REPEATS and re.fullmatch(".*".join(parts), name) is not None
    return name == entry or name.endswith(f".{entry}") or name.startswith(f"{entry}.")


def _compiled(files: ArtifactFiles, place: str, pattern: str) -> re.Pattern[str]:
    try:
        simple = len(pattern) <= _MOST_CHARACTERS and not _HOSTILE.search(pattern)
        if simple and len(_REPEAT.findall(pattern)) <= _MOST_REPEATS:
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        pass
    raise ArtifactError(
        f"{place} of {files.root.name} leaves modules out by the pattern {pattern[:100]!r}, which is not run here.",
        why="Which weights a loader would take cannot be told.",
        fix="name the modules, or use a pattern without repeated groups",
    )


def stored_twice(files: ArtifactFiles, layers: dict[str, Any], plain: Iterable[str]) -> None:
    """Refuse a matrix that is stored packed and once more as it is: which one is loaded depends on the loader.

    Args:
        files: The artifact.
        layers: Names that the parent gives to the packed matrices.
        plain: Names of the other tensors.

    Raises:
        ArtifactError: A name stands on both sides.
    """
    for name in plain:
        if name in layers:
            raise ArtifactError(
                f"{files.root.name} holds {name[:200]} twice, quantized and as it is.",
                why="Which of the two is loaded depends on the loader and its config, so neither counts.",
                fix=f"remove one of them: the tensor {name[:200]}, or what it was quantized to",
            )

"""Read a YAML file that a person wrote: bounded, no duplicate keys, no code, and the misspelt key is named."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mlflow_quantgov.errors import PolicyError, nearest_folder, short

MAX_BYTES = 1_000_000
Model = TypeVar("Model", bound=BaseModel)


class FileKind(NamedTuple):
    """What an error about a file of one kind says beside the problem."""

    why: str
    """Why it must be understood whole."""
    without: str
    """What is not done without it."""
    schemas: tuple[str, ...]
    """Kinds that `quantgov schema` prints for it."""


DEMANDS = FileKind(
    why="A file that says what is demanded must be understood whole, or it demands something else.",
    without="Nothing is decided without it.",
    schemas=("policy", "target"),
)
"""Policies, targets and the tables that ship with them."""


_TWO_MEANINGS = re.compile(
    r"""yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF   # true and false for some, words for others
    |[-+]?0[0-9_]+                                 # octal for some
    |[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?  # base 60 for some
    """,
    re.VERBOSE,
)


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys, aliases (which make small files explode), and words of two meanings."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed here")
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.style is None and _TWO_MEANINGS.fullmatch(node.value):
            line, value = node.start_mark.line + 1, node.value[:50]
            raise yaml.YAMLError(
                f"line {line}: {value} means different things to different readers of YAML: put it in quotes, or write "
                "true, false or a plain number"
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"line {line}: merge keys (<<) are not allowed here")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.YAMLError(f"line {line}: a key must be one word or number")
            if key in seen:
                raise yaml.YAMLError(f"line {line}: the key {short(key)} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str, kind: FileKind = DEMANDS) -> Any:
    """Parse YAML text.

    Args:
        text: What stands in the file.
        where: Name of the file, for the error.
        kind: What the file is for.

    Raises:
        PolicyError: Too large, or no sound YAML.
    """
    if len(text.encode()) > MAX_BYTES:
        raise _bad(where, f"it is larger than {MAX_BYTES:,} bytes", kind)
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _bad(where, " ".join(str(error).split())[:300], kind) from error


def read_yaml(path: Path, kind: FileKind = DEMANDS) -> str:
    """Text of a YAML file.

    Args:
        path: The file.
        kind: What it is for.

    Raises:
        PolicyError: It does not exist, is too large, or is not text.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise _bad(path.name, "it is a pipe or a device, no ordinary file", kind)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _bad(path.name, f"it is larger than {MAX_BYTES:,} bytes", kind)
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        problem = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", error)
        raise PolicyError(
            f"{path} cannot be read: {problem}.",
            why=kind.without,
            fix=f"ls -l {path if os.path.exists(path) else nearest_folder(path)}; {_help(kind)}",  # noqa: PTH110 (never raises)
        ) from error


def validate(model: type[Model], value: Any, where: str, kind: FileKind = DEMANDS) -> Model:
    """Check a parsed value against a model.

    Args:
        model: What it has to be.
        value: As it was parsed.
        where: Name of the file, for the error.
        kind: What the file is for.

    Raises:
        PolicyError: A key is misspelt or missing, or a value is of the wrong kind; the first problem is named.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # A misspelt key is also a missing one: name the former, which is what the writer can see in the file.
        problem = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            near = difflib.get_close_matches(key, _all_keys(model), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise _bad(where, f"the key {short(place)} is not known{hint}", kind) from error
        said = str(problem["msg"])
        raise _bad(where, f"{short(place, quoted=False)}: {said}" if place else said, kind) from error


def _all_keys(model: type[BaseModel]) -> list[str]:
    """Every key that the schema of a model knows, at any depth."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return sorted({key for part in parts for key in part.get("properties", {})})


def _help(kind: FileKind) -> str:
    """Where every key of such a file is listed."""
    commands = " and ".join(f"`quantgov schema {one}`" for one in kind.schemas)
    return f"{commands} {'lists' if len(kind.schemas) == 1 else 'list'} every key"


def _bad(where: str, problem: str, kind: FileKind) -> PolicyError:
    return PolicyError(
        f"{where}: {problem}{'' if problem.endswith('?') else '.'}",
        why=kind.why,
        fix=f"correct {where}; {_help(kind)}",
    )

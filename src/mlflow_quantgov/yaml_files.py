"""Read a YAML file that a person wrote: bounded, no duplicate keys, no code, and the misspelt key is named."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mlflow_quantgov.errors import PolicyError

MAX_BYTES = 1_000_000
Model = TypeVar("Model", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys and aliases (which make small files explode)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key {twice!r} stands twice")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text.

    Raises:
        PolicyError: Too large, or no sound YAML.
    """
    if len(text.encode()) > MAX_BYTES:
        raise _bad(where, f"it is larger than {MAX_BYTES:,} bytes")
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _bad(where, " ".join(str(error).split())[:300]) from error


def read_yaml(path: Path) -> str:
    """Text of a YAML file.

    Raises:
        PolicyError: It does not exist, is too large, or is not text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _bad(path.name, f"it is larger than {MAX_BYTES:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}.",
            why="Nothing is decided without it.",
            fix=f"ls -l {path}",
        ) from error


def validate(model: type[Model], value: Any, where: str) -> Model:
    """Check a parsed value against a model.

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
            raise _bad(where, f"the key {place!r} is not known{hint}") from error
        raise _bad(where, f"{place}: {problem['msg']}" if place else str(problem["msg"])) from error


def _all_keys(model: type[BaseModel]) -> list[str]:
    """Every key that the schema of a model knows, at any depth."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return sorted({key for part in parts for key in part.get("properties", {})})


def _bad(where: str, problem: str) -> PolicyError:
    return PolicyError(
        f"{where}: {problem}.",
        why="A file that says what is demanded must be understood whole, or it demands something else.",
        fix=f"correct {where}; `quantgov schema policy` and `quantgov schema target` list every key",
    )

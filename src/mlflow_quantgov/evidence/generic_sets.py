"""The calibration sets that tooling ships with, and which of them a name means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlflow_quantgov.resources import policies_dir
from mlflow_quantgov.yaml_files import parse_yaml, read_yaml, validate

FILE = "calibration/generic-sets.yaml"
SHINGLE = r"^\d{1,3}(?:\.\d{1,3}){7}:[0-9a-f]{16}$"
"""Letters of each of eight words, and the first half of the SHA-256 of these words, joined by single spaces."""
_PATH = re.compile(r"^(?:[/~.]|[A-Za-z]:\\)|\\")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Passage(_Part):
    """Places of a public set, as digests."""

    shingles: tuple[str, ...] = Field(min_length=2)
    source: str

    @field_validator("shingles")
    @classmethod
    def _are_shingles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.match(SHINGLE, one) for one in value):
            raise ValueError("a shingle is eight numbers, a colon and sixteen hexadecimal digits")
        return value


class Mark(_Part):
    """How a set spells things."""

    pattern: str
    share: float = Field(gt=0, le=1)
    """Of the documents, which must match."""
    source: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        re.compile(value)
        return value


class GenericSet(_Part):
    """One known set."""

    name: str
    names: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    marks: tuple[Mark, ...] = ()
    source: str


class GenericSets(_Part):
    """The shipped file."""

    schema_: Literal["quantgov/generic-sets/v2"] = Field(alias="schema")
    sets: tuple[GenericSet, ...]


@cache
def known_sets() -> tuple[GenericSet, ...]:
    """The shipped list.

    Raises:
        PolicyError: The file was damaged.
    """
    path = policies_dir() / FILE
    return validate(GenericSets, parse_yaml(read_yaml(path), path.name), path.name).sets


def named_set(texts: Iterable[str]) -> str | None:
    """Name of the generic set that any of some names or descriptions means, or None.

    Args:
        texts: What an author says, a file's name, or what a producer left in a model's metadata. Of a path only the last
            part counts: whose folder it lay in says nothing.
    """
    folded = [_last_part(text).strip().casefold() for text in texts]
    for one in known_sets():
        pattern = re.compile("|".join(rf"(?<![a-z0-9])(?:{name})(?![a-z0-9])" for name in one.names) or r"(?!)")
        if any(text in one.exact or pattern.search(text) for text in folded):
            return one.name
    return None


def _last_part(text: str) -> str:
    if not _PATH.search(text):
        return text
    return PurePosixPath(PureWindowsPath(text).as_posix()).name

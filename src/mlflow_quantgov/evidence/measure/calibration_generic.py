"""Recognises calibration sets that tooling ships with, by stated source, file name and marks in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlflow_quantgov.evidence.measure.calibration_overlap import normalise
from mlflow_quantgov.resources import policies_dir
from mlflow_quantgov.yaml_files import parse_yaml, read_yaml, validate

FILE = "calibration/generic-sets.yaml"
MAX_CHARACTERS = 20_000
"""Characters of a document in which marks are looked for."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Phrase(_Part):
    """Text that opens a public set."""

    text: str = Field(min_length=10)
    source: str


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
    phrases: tuple[Phrase, ...] = ()
    marks: tuple[Mark, ...] = ()
    source: str


class GenericSets(_Part):
    """The shipped file."""

    schema_: Literal["quantgov/generic-sets/v1"] = Field(alias="schema")
    sets: tuple[GenericSet, ...]


@cache
def known_sets() -> tuple[GenericSet, ...]:
    """The shipped list.

    Raises:
        PolicyError: The file was damaged.
    """
    path = policies_dir() / FILE
    return validate(GenericSets, parse_yaml(read_yaml(path), path.name), path.name).sets


def recognise(documents: Sequence[str], *, source: str | None, file_name: str) -> str | None:
    """Name of the generic set that some documents are, or None.

    Args:
        documents: The calibration documents.
        source: What the author says they are.
        file_name: Name of the file, without its folder.
    """
    stated = f"{source or ''} \n {file_name}".casefold()
    texts = [document[:MAX_CHARACTERS] for document in documents]
    plain = "\n".join(normalise(text) for text in texts)
    for one in known_sets():
        if any(re.search(rf"(?<![a-z0-9])(?:{name})(?![a-z0-9])", stated) for name in one.names):
            return one.name
        if any(normalise(phrase.text) in plain for phrase in one.phrases):
            return one.name
        if any(_share(mark.pattern, texts) >= mark.share for mark in one.marks):
            return one.name
    return None


def _share(pattern: str, texts: Sequence[str]) -> float:
    compiled = re.compile(pattern)
    return sum(compiled.search(text) is not None for text in texts) / len(texts)

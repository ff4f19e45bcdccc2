"""Is this a set that everybody's tooling ships as its default?"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from mlflow_quantgov.resources import policies_dir
from mlflow_quantgov.yaml_files import parse_yaml, read_yaml, validate


class GenericSet(BaseModel):
    """One known set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    names: tuple[str, ...]
    marks: tuple[str, ...]
    share: float
    source: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: str = Field(alias="schema")
    sets: tuple[GenericSet, ...]


def recognise(documents: Sequence[str], source: str | None) -> str | None:
    """Name of the generic set that the documents or their stated source are, or None."""
    for known in _known():
        if source and any(name.casefold() in source.casefold() for name in known.names):
            return known.name
        marked = sum(any(mark in text for mark in known.marks) for text in documents)
        if known.marks and marked >= known.share * len(documents):
            return known.name
    return None


def _known() -> tuple[GenericSet, ...]:
    path = policies_dir() / "calibration" / "generic-sets.yaml"
    return validate(_File, parse_yaml(read_yaml(path), path.name), path.name).sets

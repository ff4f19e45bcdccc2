"""Whose imported records are: they name weights alone, and the gate notes what else the version held that they were attached to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_quantgov.evidence.predicates import Predicate, Side

_OF_THE_VERSION, _OF_THE_PARENT = ("quantized", "side"), "parent"
"""Fields of a predicate."""


@dataclass(frozen=True)
class Noted:
    """Digests of configuration, tokenizer and template, for the sides of imported records that name none."""

    version: str | None = None
    """Of the version; None where the records name it, or have no such side."""
    parent: str | None = None
    """Of its parent."""

    @classmethod
    def of(cls, content: Predicate, behaviours: Mapping[str, str]) -> Noted | None:
        """What is to be noted of records; None where nothing is, since they were measured here or name it themselves.

        Args:
            content: The records.
            behaviours: Weights digest to digest of behaviour, of the version that they are attached to and of its parent.

        Raises:
            KeyError: A side is one of `strangers`.
        """
        sides = _silent(content)
        if not sides:
            return None
        mine = next((sides[name] for name in _OF_THE_VERSION if name in sides), None)
        parent = sides.get(_OF_THE_PARENT)
        return cls(behaviours[mine.weights] if mine else None, behaviours[parent.weights] if parent else None)

    def fill(self, content: Predicate) -> Predicate:
        """The records, with what was noted on the sides that name nothing; what was stated stays in the statement."""
        noted = dict.fromkeys(_OF_THE_VERSION, self.version) | {_OF_THE_PARENT: self.parent}
        silent = _silent(content).items()
        return content.model_copy(
            update={name: side.model_copy(update={"behaviour": noted[name]}) for name, side in silent}
        )


def strangers(content: Predicate, behaviours: Mapping[str, str]) -> list[str]:
    """Weights of imported sides of which nobody can say what else was run: they are neither the version's nor its parent's."""
    return [side.weights for side in _silent(content).values() if side.weights not in behaviours]


def _silent(content: Predicate) -> dict[str, Side]:
    """Sides of imported records that do not say which configuration and tokenizer ran, by field."""
    if not content.provenance.imported:
        return {}
    sides = {name: getattr(content, name, None) for name in (*_OF_THE_VERSION, _OF_THE_PARENT)}
    return {name: side for name, side in sides.items() if isinstance(side, Side) and side.behaviour is None}

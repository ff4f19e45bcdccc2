"""Our own implementations of an interface by name, and those that third parties add through entry points."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from mlflow_quantgov.errors import UsageError

Plugin = TypeVar("Plugin")


def entry_points(group: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Those of a group that are installed.

    Looked up once for each search path: the search reads a file of every package, and what is installed does not change
    while a process runs.
    """
    return _entry_points(group, tuple(sys.path))


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=group))


@dataclass(frozen=True)
class Plugins(Generic[Plugin]):
    """One kind of implementation."""

    kind: str
    """Word for it: `runtime`."""
    base: type[Plugin]
    """What every implementation derives from; its class takes no arguments."""
    group: str
    """Entry-point group: each entry names a class."""
    own: Mapping[str, str]
    """Name to `module:class`; a third party cannot take one of these names."""
    without: str
    """What cannot be done without it, one sentence."""

    def names(self) -> list[str]:
        """Names of all, our own first, in their order."""
        return list(self._references())

    def find(self, name: str, fix: str) -> Plugin:
        """An instance of the one with a name.

        Args:
            name: As people write it.
            fix: What to do where there is none; `{names}` stands for the known ones.

        Raises:
            UsageError: None has that name, or its entry point does not load.
        """
        references = self._references()
        if name not in references:
            raise UsageError(
                f"No {self.kind} {name[:100]!r} is installed here.",
                why=self.without,
                fix=f"{fix.format(names=', '.join(references))}, or install a plugin of the group {self.group}",
            )
        module, _, attribute = references[name].partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)()
        except (ImportError, AttributeError, TypeError) as error:
            raise self._broken(f"{name!r} ({references[name]}) does not load: {error}") from error
        if not isinstance(found, self.base):
            raise self._broken(f"{name!r} ({references[name]}) does not derive from {self.base.__name__}")
        return found

    def _references(self) -> dict[str, str]:
        found = entry_points(self.group)
        return dict(self.own) | {entry.name: entry.value for entry in found if entry.name not in self.own}

    def _broken(self, problem: str) -> UsageError:
        return UsageError(
            f"The {self.kind} {problem}.", why=self.without, fix="upgrade or uninstall the package that brings it"
        )

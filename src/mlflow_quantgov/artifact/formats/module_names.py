"""Names of modules, looked up by what configs write: thousands of entries over thousands of names."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from functools import cached_property, lru_cache

from mlflow_quantgov.artifact.formats.patterns import Effort, matches_from_start

_NAME = re.compile(r"[\w.\-/]+")
_DIGIT = re.compile(r"\d")
_BEGINNING = re.compile(r"(?:[\w\-/]|\\\.)*")
_NOT_WIDENED = re.compile(r"[\[{!]|\\\d")
"""Where digits are more than themselves, or must not be there."""
_LAST = "\U0010ffff"
_MOST_PARTS = 16


class UnknownPatternError(Exception):
    """A pattern that is not known here, or would take too long."""


def is_name(entry: str) -> bool:
    """Whether an entry is a name without anything that a pattern needs."""
    return _NAME.fullmatch(entry) is not None


class ModuleNames:
    """Names of packed modules.

    Args:
        names: The names.
        stored: Parts of the names of all stored tensors.
        effort: What may be spent on patterns.
    """

    def __init__(self, names: Iterable[str], stored: set[str], effort: Effort | None = None) -> None:
        self.names = sorted(set(names))
        self._stored = stored
        self._effort = effort or Effort()

    def of_parts(self, entry: str) -> str | None:
        """A module whose name has an entry as some of its parts, whole ones."""
        return self._parts.get(entry.strip("."))

    def ending(self, entry: str) -> str | None:
        """A module whose name ends so, within a part or not."""
        backwards = entry[::-1]
        at = bisect_left(self._backwards, backwards)
        found = self._backwards[at] if at < len(self._backwards) else ""
        return found[::-1] if found.startswith(backwards) else None

    def knows_parts(self, entry: str) -> bool:
        """Whether an entry is a name of parts that are stored somewhere: then its dots stand for nothing but dots."""
        return is_name(entry) and all(part in self._stored for part in entry.strip(".").split("."))

    def of_pattern(self, pattern: str, *, at_boundary: bool = False) -> str | None:
        """A module whose name a pattern matches from its start.

        Args:
            pattern: A regular expression.
            at_boundary: Whether it has to end where a part of the name does.

        Raises:
            UnknownPatternError: The pattern is not known here.
        """
        found = _BEGINNING.match(pattern)
        beginning = "" if found is None or "|" in pattern else found[0]
        if found is not None and pattern[found.end() : found.end() + 1] in {"*", "?", "{"}:
            beginning = ""
        return self._first(
            pattern,
            beginning.replace("\\", ""),
            lambda entry, name: self._matches(entry, name, at_boundary=at_boundary),
        )

    def of_stars(self, entry: str) -> str | None:
        """A module that a name with stars covers, as fnmatch says."""
        return self._first(entry, re.split(r"[*?\[]", entry, maxsplit=1)[0], self._covers)

    def without(self, entries: Iterable[str], patterns: list[str]) -> Iterator[str]:
        """Modules that nothing of a list covers.

        Args:
            entries: Names, which may have a prefix more or less.
            patterns: Regular expressions that match names from their start.

        Raises:
            UnknownPatternError: A pattern is not known here.
        """
        listed = set(entries)
        longer = {end for entry in listed for end in _ends(entry)}
        for name in self.names:
            named = name in longer or not listed.isdisjoint(_ends(name))
            if not named and not any(self._matches(pattern, name) for pattern in patterns):
                yield name

    @cached_property
    def _parts(self) -> dict[str, str]:
        """Every run of whole parts, to the first module that has it."""
        found: dict[str, str] = {}
        for name in self.names:
            for end in _ends(name):
                # What begins so begins with each of its shorter runs.
                while end and found.setdefault(end, name) is name:
                    end = end.rpartition(".")[0]
        return found

    @cached_property
    def _backwards(self) -> list[str]:
        return sorted(name[::-1] for name in self.names)

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """Names with all digits alike, to the first module: a pattern without digits cannot tell the others from it."""
        found: dict[str, str] = {}
        for name in self.names:
            found.setdefault(_DIGIT.sub("0", name), name)
        return found

    def _matches(self, pattern: str, name: str, *, at_boundary: bool = False) -> bool:
        found = matches_from_start(pattern, name, at_boundary=at_boundary, effort=self._effort)
        if found is None:
            raise UnknownPatternError(pattern)
        return found

    def _covers(self, entry: str, name: str) -> bool:
        matches = _stars(entry)
        self._effort.spend(len(name))
        if self._effort.left <= 0:
            raise UnknownPatternError(entry)
        return matches is not None and matches.match(name) is not None

    def _first(self, entry: str, beginning: str, matches: Callable[[str, str], bool]) -> str | None:
        """The first module that an entry matches, of those that begin as it does."""
        try:
            return self._found(entry, beginning, matches)
        except UnknownPatternError as error:
            raise UnknownPatternError(entry) from error

    def _found(self, entry: str, beginning: str, matches: Callable[[str, str], bool]) -> str | None:
        if not _DIGIT.search(entry):
            return next((name for kind, name in self._kinds.items() if matches(entry, kind)), None)
        if not _NOT_WIDENED.search(entry):
            # With all digits alike it matches more; where that is nothing, no name need be looked at.
            wide = _DIGIT.sub("0", entry)
            if not any(matches(wide, kind) for kind in self._kinds):
                return None
        at, end = bisect_left(self.names, beginning), bisect_left(self.names, beginning + _LAST)
        return next((name for name in self.names[at:end] if matches(entry, name)), None)


@lru_cache(maxsize=1024)
def _stars(entry: str) -> re.Pattern[str] | None:
    try:
        return re.compile(translate(entry))
    except (re.error, OverflowError, RecursionError):
        return None


def _ends(name: str) -> Iterator[str]:
    """A name, and what stands behind each of its dots."""
    for _ in range(_MOST_PARTS):
        yield name
        name = name.partition(".")[2]
        if not name:
            return

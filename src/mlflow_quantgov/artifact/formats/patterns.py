r"""Patterns of module names out of configs, matched in a time that does not explode.

A config may come from anywhere, and Python's `re` can take forever over a hostile pattern. It runs those alone in which next to
nothing is repeated. For the others all places that a part of the pattern can reach in a name are followed at once, so that the
time is bounded.
Known: letters, escapes, classes, `.`, `^`, `$`, `\b`, groups, alternatives, quantifiers, looking ahead and behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

_Places = frozenset[int]
_LONGEST = 1000
_MOST_REPEATS = 100
_MOST_STEPS = 1 << 18
_DEEPEST = 20
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_REPEAT = re.compile(r"\{(\d{1,3})(?:(,)(\d{0,3}))?\}")
_LOOKS = ("?=", "?!", "?<=", "?<!")
_QUANTIFIERS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_KNOWN_ESCAPES = frozenset("dDwWsS")
_INVOLVED = re.compile(r"\)[*+{]|\(\?[^:]|\\[^.\-_/dDwWsSbZ]")
"""Repeated groups, assertions, and escapes that are not known here."""
_BOUNDARY = r"(?:\Z|(?=\.)|(?<=\.))"
_REPEATED = re.compile(r"(?<!\\)[*+{]")
_FEW_REPEATS, _SHORT = 2, 200
_COST_OF_STEP = 20
"""Of a step that is followed here, or of a letter where `re` may go back, to one letter that `re` looks at."""


@dataclass
class Effort:
    """What may still be spent on all patterns and names of an artifact, in letters that `re` looks at."""

    left: int = 200_000_000
    """Twenty seconds; an honest config of a model with 44,000 matrices takes less than one."""

    def spend(self, letters: int) -> None:
        """Take some of it; afterwards no pattern is known any more where nothing is left."""
        self.left -= letters


class _Name(str):
    """A module's name, and the steps that were taken over it: repeats within repeats multiply."""

    __slots__ = ("steps",)
    steps: int


_Step = Callable[[_Name, _Places], _Places]


def matches_from_start(
    pattern: str, name: str, *, at_boundary: bool = False, effort: Effort | None = None
) -> bool | None:
    """Whether a pattern matches the beginning of a name, as `re.match` says; None for a pattern that is not known here.

    Args:
        pattern: A regular expression.
        name: A module's name.
        at_boundary: Whether the match has to end where a part of the name does.
        effort: What may be spent; by default there is a limit for this one pair alone.
    """
    effort = effort or Effort()
    if effort.left <= 0:
        return None
    simple = _simple(pattern, at_boundary)
    if simple is not None and len(name) <= _SHORT:
        effort.spend(len(name) * simple.cost)
        return simple.pattern.match(name) is not None
    step = _compiled(pattern)
    if step is None or len(name) > _LONGEST:
        return None
    named = _Name(name)
    named.steps = 0
    try:
        ends = step(named, frozenset({0}))
    except _UnknownError:
        return None
    finally:
        effort.spend(_COST_OF_STEP * named.steps)
    if at_boundary:
        return any(end == len(name) or name[end] == "." or (end and name[end - 1] == ".") for end in ends)
    return bool(ends)


class _Simple(NamedTuple):
    pattern: re.Pattern[str]
    cost: int
    """Of each letter of a name."""


@lru_cache(maxsize=1024)
def _simple(pattern: str, at_boundary: bool) -> _Simple | None:
    """A pattern whose time grows with the square of a name's length at most."""
    repeats = len(_REPEATED.findall(pattern if at_boundary else pattern.removesuffix(".*")))
    if len(pattern) > _LONGEST or repeats > _FEW_REPEATS or _INVOLVED.search(pattern) or _compiled(pattern) is None:
        return None
    try:
        return _Simple(
            re.compile(f"(?:{pattern}){_BOUNDARY}" if at_boundary else pattern),
            1 if repeats < _FEW_REPEATS else _COST_OF_STEP,
        )
    except (re.error, OverflowError, RecursionError):
        return None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> _Step | None:
    if len(pattern) > _LONGEST:
        return None
    try:
        reader = _Reader(pattern)
        found = reader.alternatives(0)
        return found if reader.at == len(pattern) else None
    except (_UnknownError, re.error):
        return None


class _UnknownError(Exception):
    """A part of a pattern that is not known here, or takes too long."""


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    def alternatives(self, depth: int) -> _Step:
        if depth > _DEEPEST:
            raise _UnknownError
        found = [self._sequence(depth)]
        while self._take("|"):
            found.append(self._sequence(depth))
        return lambda name, places: frozenset().union(*(one(name, places) for one in found))

    def _sequence(self, depth: int) -> _Step:
        steps = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            steps.append(self._quantified(self._atom(depth)))
        return lambda name, places: _through(steps, name, places)

    def _take(self, text: str) -> bool:
        if not self.pattern.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _atom(self, depth: int) -> _Step:
        if self._take("("):
            return self._group(depth)
        if self._take("^"):
            return lambda name, places: places & {0}
        if self._take("$"):
            return lambda name, places: places & {len(name)}
        if self._take("\\"):
            return self._escape()
        if found := _CLASS.match(self.pattern, self.at):
            self.at = found.end()
            return _letter(re.compile(found[0]))
        letter = self.pattern[self.at]
        if letter in "*+?[{":
            raise _UnknownError
        self.at += 1
        return _letter(re.compile("." if letter == "." else re.escape(letter)))

    def _escape(self) -> _Step:
        letter = self.pattern[self.at : self.at + 1]
        self.at += 1
        if letter == "b":
            return lambda name, places: frozenset(at for at in places if _is_word(name, at - 1) != _is_word(name, at))
        if letter == "Z":
            return lambda name, places: places & {len(name)}
        if not letter or (letter.isalnum() and letter not in _KNOWN_ESCAPES):
            raise _UnknownError
        return _letter(re.compile(f"\\{letter}"))

    def _group(self, depth: int) -> _Step:
        looks = next((one for one in _LOOKS if self._take(one)), None)
        if looks is None and not self._take("?:") and self.pattern.startswith("?", self.at):
            raise _UnknownError
        inner = self.alternatives(depth + 1)
        if not self._take(")"):
            raise _UnknownError
        if looks is None:
            return inner
        wanted = looks.endswith("=")
        if "<" in looks:
            # From wherever it may begin, it has to end here.
            return lambda name, places: frozenset(
                at for at in places if (at in inner(name, frozenset(range(at + 1)))) == wanted
            )
        return lambda name, places: frozenset(at for at in places if bool(inner(name, frozenset({at}))) == wanted)

    def _quantified(self, step: _Step) -> _Step:
        letter = self.pattern[self.at : self.at + 1]
        if letter in _QUANTIFIERS:
            least, most = _QUANTIFIERS[letter]
            self.at += 1
        elif found := _REPEAT.match(self.pattern, self.at):
            least = int(found[1])
            most = least if not found[2] else int(found[3]) if found[3] else None
            self.at = found.end()
        else:
            return step
        if max(least, most or 0) > _MOST_REPEATS or self._take("+"):
            raise _UnknownError
        self._take("?")
        return lambda name, places: _repeated(step, least, most, name, places)


def _letter(one: re.Pattern[str]) -> _Step:
    def step(name: _Name, places: _Places) -> _Places:
        name.steps += 1 + len(places)
        if name.steps > _MOST_STEPS:
            raise _UnknownError
        return frozenset(at + 1 for at in places if at < len(name) and one.fullmatch(name[at]))

    return step


def _through(steps: Iterable[_Step], name: _Name, places: _Places) -> _Places:
    for step in steps:
        if not places:
            break
        places = step(name, places)
    return places


def _repeated(step: _Step, least: int, most: int | None, name: _Name, places: _Places) -> _Places:
    for _ in range(least):
        places = step(name, places)
    reached, new = places, places
    for _ in range(len(name) + 1 if most is None else most - least):
        new = step(name, new) - reached
        if not new:
            break
        reached |= new
    return reached


def _is_word(name: str, at: int) -> bool:
    return 0 <= at < len(name) and (name[at].isalnum() or name[at] == "_")

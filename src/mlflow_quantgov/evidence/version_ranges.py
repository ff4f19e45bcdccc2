"""How the versions that one PEP 440 specifier admits lie to another's: all inside it, none, or some."""

from __future__ import annotations

from typing import Annotated

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator

_FAR = 10**6
"""Beyond any component of a version."""


def _specifier(text: str) -> str:
    """A specifier that parses, as it was written."""
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is no version specifier (PEP 440), such as >=0.33,<1") from error
    return text


Specifier = Annotated[str, AfterValidator(_specifier)]
"""Text of a PEP 440 specifier; empty admits every version."""


def admits(specifier: str, version: str) -> bool | None:
    """Whether a specifier admits a version; None where the version is no PEP 440 version.

    Args:
        specifier: Comma-separated clauses; empty admits all.
        version: Pre-releases count as what they are.
    """
    if not specifier:
        return True
    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return None


def lies_within(inner: str, outer: str) -> bool | None:
    """Whether every version that `inner` admits is admitted by `outer` too.

    Clauses only change their mind at the versions that they name. So it is enough to ask at these, a little above and below
    them, and at both ends of all versions.

    Returns:
        True for all, False for none, None for some.
    """
    if not outer:
        return True
    inside = SpecifierSet(inner)
    points = [one for one in _points(inner, outer) if inside.contains(one, prereleases=True)]
    found = {SpecifierSet(outer).contains(one, prereleases=True) for one in points}
    return found.pop() if len(found) == 1 else None


def _points(*specifiers: str) -> set[Version]:
    """Versions at and around every one that is named."""
    found = {Version("0"), Version(f"{_FAR}")}
    for clause in (one for text in specifiers for one in SpecifierSet(text)):
        named = Version(clause.version.removesuffix(".*"))
        release = named.release
        found |= {named, _version((*release, 0, 0, 1))}
        for length in range(1, len(release) + 1):
            part = release[:length]
            # Where `~=` and `.*` end, and just before it and before the version itself.
            found |= {_version((*part[:-1], part[-1] + 1)), _version((*part, _FAR))}
            if part[-1]:
                found.add(_version((*part[:-1], part[-1] - 1, _FAR)))
    return found


def _version(release: tuple[int, ...]) -> Version:
    return Version(".".join(map(str, release)))

"""One line of what `quantgov doctor` found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    outcome: str
    """`pass`, `fail` or `inconclusive`."""
    detail: str
    fix: str = ""
    files: tuple[str, ...] = ()
    """Paths inside a version's folder that are not what they were."""

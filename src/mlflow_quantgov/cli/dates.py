"""A date or time on the command line, in UTC where nothing else is said."""

from __future__ import annotations

from datetime import UTC, datetime, time

import click

_DAY = len("2026-01-31")


def end(text: str) -> datetime:
    """Read when something ends: `2026-01-31` (the end of that day, UTC), or a time such as `2026-01-31T12:00:00+01:00`.

    Raises:
        BadParameter: It is neither.
    """
    return _read(text, time(23, 59, 59))


def start(text: str) -> datetime:
    """Read when something begins: the same, and a date is the beginning of that day.

    Raises:
        BadParameter: It is neither.
    """
    return _read(text, time())


def _read(text: str, of_day: time) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise click.BadParameter(f"{text[:50]!r} is no date; write it as 2026-01-31 or 2026-01-31T12:00:00Z") from error
    if len(text.strip()) <= _DAY:
        found = datetime.combine(found.date(), of_day)
    return found if found.tzinfo else found.replace(tzinfo=UTC)

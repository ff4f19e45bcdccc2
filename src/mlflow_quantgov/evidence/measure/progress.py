"""How a measurement says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with a message and the fraction done, from 0 to 1."""


def duration(seconds: float) -> str:
    """An estimated time as people say it, such as "12 s", "5 minutes" or "1.5 hours"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"

"""How a measurement says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from mlflow_quantgov.artifact.describe import size_words

Progress = Callable[[str, float], None]
"""Called with a message and the fraction done, from 0 to 1."""


def duration(seconds: float) -> str:
    """An estimated time as people say it, such as "12 s", "5 minutes" or "1.5 hours"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


class ByteMeter:
    """Counts bytes that are done, from any thread, and says how far that is.

    Args:
        report: Called with a message and the fraction done; None where nobody listens.
        total: Bytes of the whole.
        doing: What is done with them (`archived`).
    """

    def __init__(self, report: Progress | None, total: int, doing: str) -> None:
        self._report, self._total, self._doing = report, total, doing
        self._done, self._lock = 0, Lock()

    def announce(self, message: str) -> None:
        """Say what it will cost, before it does."""
        if self._report:
            self._report(message, 0.0)

    def advance(self, count: int) -> None:
        """So many more bytes are done."""
        with self._lock:
            self._done += count
            if self._report and self._total:
                words = f"{size_words(self._done)} of {size_words(self._total)} {self._doing}"
                self._report(words, min(1.0, self._done / self._total))

"""What an evaluation says while it runs: what it will cost, how far it is, and how long it still takes."""

from __future__ import annotations

import time

from mlflow_quantgov.evidence.measure.cache import BatchCache
from mlflow_quantgov.evidence.measure.progress import Progress, duration

_LEAST_SECONDS = 1.0
"""Before that, a rate is a guess."""


class Meter:
    """Progress of one part of an evaluation.

    Args:
        report: Called with a message and the fraction of the whole, from 0 to 1.
        name: What is being asked (`parent`, `quantized`).
        start: Fraction of the whole at which this part begins.
        share: Its share of the whole.
        kept: Tells answers that were given now from those that were kept: only the former take time.
    """

    def __init__(self, report: Progress, name: str, start: float, share: float, kept: BatchCache) -> None:
        self._report, self._name, self._start, self._share, self._kept = report, name, start, share, kept
        self._asked = kept.asked
        self._moment = time.monotonic()
        self._done = self._fresh = self._seconds = 0.0

    def announce(self, items: dict[str, int]) -> None:
        """Say what is going to be asked, before it is."""
        text = (
            f"{self._name}: {len(items)} task{'s' if len(items) != 1 else ''}, {sum(items.values()):,} items to answer"
        )
        self._report(text, self._start)
        self._moment = time.monotonic()

    def advance(self, fraction: float) -> None:
        """So much of this part is done."""
        now = time.monotonic()
        if self._kept.is_asking or self._kept.asked > self._asked:
            self._fresh += fraction - self._done
            self._seconds += now - self._moment
        self._asked, self._moment, self._done = self._kept.asked, now, fraction
        left = self.seconds_left()
        words = "" if left is None else f", about {duration(left)} left"
        self._report(f"{self._name}{words}", self._start + self._share * fraction)

    def seconds_left(self) -> float | None:
        """Of the whole evaluation, if all goes on at this pace; None where too little was seen."""
        whole = self._start + self._share * self._done
        if self._seconds < _LEAST_SECONDS or self._fresh <= 0 or whole >= 1:
            return None
        return self._seconds / (self._fresh * self._share) * (1 - whole)

"""What a way to commit a mistake is."""

from __future__ import annotations

from dataclasses import dataclass

from whole_releases import Release

from mlflow_quantgov.policy.decision import Outcome

MISTAKES = {
    1: "Task-level evaluation skipped, perplexity trusted alone",
    2: "Generic calibration data",
    3: "Too few bits too soon",
    4: "Kernel support ignored",
    5: "Benchmarked on the wrong machine",
    6: "A format that does not fit the deployment target",
    7: "No rollback plan",
}


@dataclass(frozen=True)
class Way:
    """One way to commit a mistake, and what it is refused with."""

    mistake: int
    name: str
    release: Release
    check: str
    outcome: Outcome
    words: str
    """What the reason says."""
    fix: str
    """What the remedy says."""
    also: tuple[str, ...] = ()
    """Checks that cannot but refuse too."""


def way(
    mistake: int, name: str, release: Release, check: str, outcome: Outcome, words: str, fix: str, *also: str
) -> Way:
    return Way(mistake, name, release, check, outcome, words, fix, also)

"""Where the story is told: numbered steps, one line per fact, verdicts in colour."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from typing import Any

from mlflow_quantgov.cli.output import coloured, print_decision, progress_bar, stdout
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.policy.decision import Decision


class Screen:
    """Prints to the terminal."""

    def __init__(self) -> None:
        """Begin with step 1."""
        self._number = 0

    def step(self, title: str) -> None:
        """A new step of the story."""
        self._number += 1
        stdout.print(f"\n{self._number}. {title}", style="bold", soft_wrap=True)

    def say(self, text: str, *, good: bool | None = None) -> None:
        """One fact; green or red where it is good or bad news."""
        style = {True: "green", False: "red", None: None}[good]
        stdout.print(f"   {text}", style=style, soft_wrap=True)

    def progress(self, title: str) -> AbstractContextManager[Progress | None]:
        """A progress bar for something long."""
        return progress_bar(f"   {title}", quiet=False)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Keep back what MLflow says of itself while it registers: it would tear the story apart."""
        with redirect_stderr(io.StringIO()):
            yield

    def decision(self, decision: Decision) -> None:
        """A whole decision."""
        print_decision(decision)

    def ledger(self, rows: list[dict[str, Any]]) -> None:
        """Rows, oldest first."""
        for row in reversed(rows):
            kind = ": ".join(part for part in (row["kind"], row["about"]) if part)
            what = f"{kind:<22} version {row['version'] or '-':<3} {row['destination'] or '':<12}"
            stdout.print(f"   {row['seq']:>3}  {what}", coloured(str(row["decision"])), f" by {row['actor']}")

    def wait(self, text: str) -> None:
        """Wait for Enter, or for Ctrl-C where nobody can press it."""
        self.say(text)
        try:
            for _ in _lines():
                return
        except KeyboardInterrupt:
            return


def _lines() -> Iterator[str]:
    yield from sys.stdin

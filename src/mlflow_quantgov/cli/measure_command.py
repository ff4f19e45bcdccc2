"""`quantgov measure`: everything that the policy will ask for, in one view."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.api.measuring_all import Given, Measured, Step, Watch
from mlflow_quantgov.cli.measuring import key_option
from mlflow_quantgov.cli.output import (
    coloured,
    json_option,
    print_decision,
    print_fix,
    print_json,
    print_note,
    stderr,
    stdout,
)
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.progress import duration

_STATES = {
    "planned": ("planned", "dim"),
    "running": ("running", "bold"),
    "attached": ("attached", ""),
    "error": ("error", "red"),
    "lacking": ("cannot run", "yellow"),
    "not-run": ("not run", "dim"),
}
_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("uri")
@click.option("--all", "everything", is_flag=True, help="Measure whatever the gate still misses, cheapest first.")
@click.option("--to", default="@champion", show_default=True, help="Destination whose gate is asked.")
@click.option("--tasks", type=_FILE, metavar="DIR", help="lm-eval tasks, for the task evaluation.")
@click.option("--text", type=_FILE, metavar="FILE", help="Production-like documents, for fidelity.")
@click.option("--calibration", type=_FILE, metavar="FILE", help="What the quantizer saw.")
@click.option("--production", type=_FILE, metavar="FILE", help="A sample of production traffic.")
@click.option("--store", envvar="QUANTGOV_ARCHIVE", help="Folder or URL of the archive.")
@click.option("--target", help="Name or path of a target; default: the version's own.")
@click.option("--keep-going", is_flag=True, help="Go on after a check has failed.")
@click.option("--again", is_flag=True, help="Measure what is settled already once more.")
@key_option
@json_option
def measure(
    uri: str,
    everything: bool,
    to: str,
    tasks: Path | None,
    text: Path | None,
    calibration: Path | None,
    production: Path | None,
    store: str | None,
    target: str | None,
    keep_going: bool,
    again: bool,
    key: Path | None,
    as_json: bool,
) -> int:
    """Run what the policy will ask for and this machine can make, and attach each result.

    It stops when a check has failed, since nothing measured afterwards would let the version through. Killed and run again,
    it goes on with what is missing. It exits with 0 once everything that could run is attached, whatever it shows.
    """
    from mlflow_quantgov import api

    if not everything:
        raise UsageError(
            "Say --all, or use the command of one measurement.",
            why="`measure` runs everything that the policy will ask for.",
            fix=f"quantgov measure {uri} --all",
        )
    given = Given(tasks, text, calibration, production, store, target, key)
    try:
        with _view(quiet=as_json) as watch:
            found = api.measure_all(uri, given, to=to, keep_going=keep_going, again=again, watch=watch)
    except KeyboardInterrupt as stop:
        raise UsageError(
            "Stopped.",
            why="What was attached stays; the same command goes on with what is missing.",
            fix=f"quantgov measure {uri} --all ...",
        ) from stop
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)
    return 2 if any(step.state == "error" for step in found.steps) else 0


@contextmanager
def _view(*, quiet: bool) -> Iterator[Watch | None]:
    """One table that moves on a terminal; a line for each change of state in a log."""
    if quiet:
        yield None
    elif not stderr.is_terminal:
        yield _Lines()
    else:
        moving = _Moving()
        with Live(moving, console=stderr, transient=True, refresh_per_second=4):
            yield moving


class _Moving:
    """The table as it stands at every refresh, and under it, over the whole width, what the running one is doing."""

    def __init__(self) -> None:
        self._steps: list[Step] | None = None
        self._began: dict[str, float] = {}

    def __call__(self, found: Measured) -> None:
        for step in found.steps:
            if step.state == "running":
                self._began.setdefault(step.kind, time.monotonic())
        self._steps = found.steps

    def __rich__(self) -> Group:
        if self._steps is None:
            return Group(Text("Asking the gate what is missing ...", style="dim"))
        running = [step for step in self._steps if step.state == "running"]
        table = _table(self._steps, {step.kind: time.monotonic() - self._began[step.kind] for step in running})
        said = [f"{step.kind}: {step.said if step.fraction < 1 else 'attaching what was found'}" for step in running]
        return Group(table, *(Text(one, style="dim", no_wrap=True, overflow="ellipsis") for one in said))


class _Lines:
    """Prints what has changed since the last call."""

    def __init__(self) -> None:
        self._printed: dict[str, tuple[str, int]] = {}

    def __call__(self, found: Measured) -> None:
        for step in found.steps:
            now = (step.state, int(step.fraction * 10) if step.state == "running" else 0)
            if step.state in {"planned", "lacking"} or self._printed.get(step.kind) == now:
                continue
            self._printed[step.kind] = now
            said = (
                f"  {step.fraction:4.0%}  {step.said}" if step.state == "running" else f"  {step.outcome or step.said}"
            )
            stderr.print(f"  {step.kind}  {_STATES[step.state][0]}{said.rstrip()}")


def _table(steps: list[Step], running: Mapping[str, float]) -> Table:
    """Every step in a line.

    Args:
        steps: The measurements.
        running: Seconds for which those have run that are at it.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("measurement", "state", "outcome", "time"):
        table.add_column(column, no_wrap=True)
    table.add_column("")
    for step in steps:
        word, style = _STATES[step.state]
        seconds = running.get(step.kind, step.seconds)
        took = "" if seconds is None else duration(seconds)
        table.add_row(step.kind, Text(word, style=style), _outcome(step), Text(took, style="dim"), _detail(step))
    return table


def _outcome(step: Step) -> Text:
    if step.outcome:
        return coloured(step.outcome)
    return Text("decides nothing" if not step.check and step.state == "attached" else "", style="dim")


def _detail(step: Step) -> Table | Text:
    """How far it is, or why it is not there."""
    if step.state != "running":
        return Text(step.said, style="dim")
    # A bar ends without a line end, so that it needs a cell of its own.
    bar = Table.grid(padding=(0, 1, 0, 0))
    bar.add_row(ProgressBar(total=1.0, completed=step.fraction, width=30), Text(f"{step.fraction:.0%}", style="dim"))
    return bar


def _print(found: Measured) -> None:
    if not found.steps:
        stdout.print("Nothing is left to measure.")
    else:
        stdout.print(_table(found.steps, {}))
    mends: dict[str, str] = {}
    for step in (one for one in found.steps if one.fix):
        kind = step.check or step.kind
        # What a narrow width needs is done one after the other; elsewhere the first remedy is what to do next.
        mends[kind] = (
            f"{mends[kind]}; {step.fix}" if kind == "bit-width" and kind in mends else mends.get(kind, step.fix)
        )
    for kind in mends.keys() - {check.check for check in found.decision.checks}:
        print_fix(mends[kind])
    if found.stopped_by is not None:
        print_note(f"stopped, as {found.stopped_by.check} has failed; --keep-going measures the rest all the same")
    stdout.print()
    print_decision(found.decision, mends)

"""What a command prints: one JSON document for machines, tables and a progress bar for people."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.errors import visible
from mlflow_quantgov.policy.decision import Decision

COLOURS = {
    "pass": "green",
    "allowed": "green",
    "yes": "green",
    "fail": "red",
    "refused": "red",
    "no": "red",
    "missing": "red",
    "inconclusive": "yellow",
    "waived": "red",
    "not-applicable": "dim",
    "valid": "green",
    "expired": "red",
    "revoked": "red",
    "not-yet-valid": "yellow",
}


class _Console(Console):
    """A console that shows what would steer a terminal, instead of obeying it: names and reasons come from files and servers.

    Nor does it end with rich's exit code 1 where the reader has gone: that code says "refused" here.
    """

    def on_broken_pipe(self) -> None:
        """Let `main` end the process."""
        raise BrokenPipeError

    def render_str(self, text: str, *args: Any, **kwargs: Any) -> Text:
        """Text as it is printed, alone or in a cell."""
        return super().render_str(visible(text), *args, **kwargs)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever is drawn, in the end."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


# No markup: `[gguf]` in a name is no style.
stdout = _Console(markup=False, highlight=False)
stderr = _Console(stderr=True, markup=False, highlight=False)


def plain(value: object) -> str:
    """Somebody's words on one line: a line end in them begins no line of ours."""
    return visible(str(value), keep="")


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`; the command gets it as `as_json`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else on stdout.")
    @functools.wraps(function)
    def with_json(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return with_json


def print_json(value: Any) -> None:
    """The one JSON document of a command."""
    print(json.dumps(value, indent=2, default=str))


def coloured(word: str, *, bold: bool = False, as_: str | None = None) -> Text:
    """An outcome in its colour, or in that of another word; the word itself carries the meaning."""
    return Text(plain(word), style=f"{'bold ' if bold else ''}{COLOURS.get(as_ or word, '')}".strip())


def print_fix(fix: str, *, word: str = "Fix:", error: bool = False) -> None:
    """A remedy on one line of its own, so that the command in it can be copied whole."""
    (stderr if error else stdout).print(Text(word, style="bold"), plain(fix), soft_wrap=True)


def print_note(text: str, *, word: str = "note", error: bool = False) -> None:
    """Something to know that decides nothing."""
    (stderr if error else stdout).print(Text(word, style="yellow"), "", plain(text), soft_wrap=error)


def print_pin(line: str) -> None:
    """What allows a parent in a policy; unbroken, since it is pasted."""
    stdout.print(Text("under yardsticks: parents: of a policy", style="bold"))
    stdout.print(f"- {plain(line)}", soft_wrap=True)


def pairs_table(title: str, rows: dict[str, Any]) -> None:
    """Two columns: what, and its value; None is left out."""
    stdout.print(Text(title, style="bold"))  # as a title of the table it would be folded to the table's width
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in rows.items():
        if value is not None:
            table.add_row(label, number(value))
    stdout.print(table)


def number(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str)
    return plain(value)


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Callable[[str, float], None] | None]:
    """A progress bar on stderr; yields the function that collectors call, or None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None if quiet else _plain_progress()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=stderr, transient=True) as bar:
        job = bar.add_task(title, total=1.0)
        yield lambda message, fraction: bar.update(job, completed=fraction, description=f"{title}: {message}")


def _plain_progress() -> Callable[[str, float], None]:
    """One line per tenth, for logs; before the work begins, each message: what it will cost is said there."""
    shown, said = -1, ""

    def report(message: str, fraction: float) -> None:
        nonlocal shown, said
        tenth = int(fraction * 10)
        if tenth > shown or (fraction == 0 and message != said):
            shown, said = tenth, message
            stderr.print(f"  {fraction:4.0%}  {message}")

    return report


def print_decision(decision: Decision, remedies: Mapping[str, str] | None = None) -> None:
    """Verdict, checks with their remedies, and the five answers.

    Args:
        decision: The decision.
        remedies: Check to a better remedy than its own, where more is known than the gate knows.
    """
    verdict = "allowed" if decision.allowed else "refused"
    what_if = "  (what if)" if decision.what_if else ""
    stdout.print(
        coloured(verdict, bold=True),
        *(
            [coloured(f"with {' and '.join(decision.waived)} waived", bold=True, as_="waived")]
            if decision.waived
            else []
        ),
        plain(f"{decision.model} version {decision.version} at {decision.destination}"),
        Text(f"policy {decision.policy_name} {decision.policy_digest[:19]}{what_if}", style="dim"),
        sep="  ",
    )
    if decision.mode == "observe":
        stdout.print(coloured("observing only: nothing is refused here, it is recorded", bold=True, as_="refused"))
    if decision.summary:
        stdout.print(plain(decision.summary))
    if decision.checks:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("check", "outcome", "reason"):
            table.add_column(column, overflow="fold")
        for check in decision.checks:
            table.add_row(check.check, coloured(check.outcome), plain(check.reason))
        stdout.print(table)
    fixes = ((remedies or {}).get(check.check, check.fix) for check in decision.checks if check.refuses)
    for fix in dict.fromkeys(fixes):
        if fix:
            print_fix(fix)
    if decision.self_audit:
        stdout.print(_answers(decision))
    for label in decision.labels:
        print_note(label)


def _answers(decision: Decision) -> Table:
    """The five answers; the table of checks above them has said why."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for answer in decision.self_audit:
        waived = coloured(" (waived)" if answer.waived else "", as_="waived")
        table.add_row(Text.assemble(coloured(answer.answer), waived), answer.question)
    return table


def print_statement(kind: str, digest: str, outcome: str | None, numbers: dict[str, Any]) -> None:
    """What a measuring command found."""
    stdout.print(Text(kind, style="bold"), "attached", Text(f" {digest}", style="dim"))
    if outcome:
        stdout.print("outcome ", coloured(outcome))
    for key, value in numbers.items():
        if isinstance(value, dict):
            pairs_table(f"\n{key}", value)
        else:
            stdout.print(f"{key}  {number(value)}")

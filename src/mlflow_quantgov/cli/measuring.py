"""What the measuring commands share: run, attach, print."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlflow_quantgov.cli.output import print_json, print_note, print_statement, progress_bar
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.statement import Statement


def key_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--key`; the command gets it as `key`."""

    @click.option(
        "--key",
        type=click.Path(path_type=Path),
        help="Private key file to sign the statement with; default: QUANTGOV_SIGNING_KEY, and unsigned without it.",
    )
    @functools.wraps(function)
    def with_key(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return with_key


def measure(
    title: str,
    run: Callable[[Progress | None], Statement],
    *,
    as_json: bool,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> Statement:
    """Run one measurement with a progress bar and print its statement.

    Args:
        title: Words for the progress bar.
        run: Takes the progress function and returns the attached statement.
        as_json: Print the JSON contract instead of a table.
        show: Prints the numbers for people; None for a plain list.

    Returns:
        The statement, for commands that exit by what it shows.
    """
    with progress_bar(title, quiet=as_json) as progress:
        statement = run(progress)
    content = statement.content()
    summary: dict[str, Any] = content.stated()
    outcome = summary.get("outcome")
    if as_json:
        print_json(
            {
                "kind": statement.kind,
                "statement_digest": statement.digest,
                "subject": statement.subject_digest,
                "attached": True,
                "outcome": outcome,
                "numbers": summary,
            }
        )
    else:
        numbers = {key: value for key, value in summary.items() if key != "outcome"}
        print_statement(statement.kind, statement.digest, outcome, {} if show else numbers)
        if show:
            show(numbers)
        for warning in getattr(content, "warnings", ()):
            print_note(warning)
    return statement

"""`quantgov spot-check`: random items of an evaluation, measured again by somebody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from mlflow_quantgov.cli.archive_command import store_option
from mlflow_quantgov.cli.compare_command import EXIT_CODES
from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import json_option, print_fix, print_note, stdout


@click.command(name="spot-check")
@click.argument("uri")
@click.option("--items", type=click.IntRange(1), default=20, show_default=True, help="Items to measure again.")
@click.option(
    "--tasks", type=click.Path(path_type=Path), help="Folder of the task files; default: tasks that lm-eval ships."
)
@click.option("--statement", metavar="DIGEST", help="The evaluation to check; default: the one that counts most.")
@store_option
@key_option
@json_option
def spot_check(
    uri: str,
    items: int,
    tasks: Path | None,
    statement: str | None,
    store: str | None,
    key: Path | None,
    as_json: bool,
) -> int:
    """Measure random items of a task evaluation again, from the archived parent and the registered version.

    The server draws the items, after the evaluation was attached. Exits with 1 where items differ beyond tolerance (signed by a
    measurer, that makes the evaluation count for nothing), with 3 where that cannot be told.
    """
    from mlflow_quantgov import api
    from mlflow_quantgov.versions import SIGNING_KEY

    found = measure(
        "spot-check",
        lambda progress: api.spot_check(
            uri, items=items, tasks=tasks, statement=statement, store=store, progress=progress, key=key
        ),
        as_json=as_json,
        show=_show,
    )
    stated = found.content().stated()
    if not as_json and stated["outcome"] == "fail" and key is None and not os.environ.get(SIGNING_KEY):
        print_note(
            "nobody signed this spot-check: it refutes only an evaluation that nobody vouches for, where no gate asks for signed "
            "ones; sign with --key NAME.key.pem",
            error=True,
        )
    if not as_json and stated["outcome"] != "pass":
        named = f" --statement {statement}" if statement else ""
        print_fix(_fix(stated, uri, f" --tasks {tasks}{named}" if tasks else named, items), error=True)
    return EXIT_CODES[stated["outcome"]]


def _fix(stated: dict[str, Any], uri: str, options: str, items: int) -> str:
    """What helps where not all agrees."""
    if stated["outcome"] == "fail":
        return f"measure it again, and look at who attached the evaluation: quantgov evaluate {uri} --tasks DIR"
    if not stated["items"]:
        return f"quantgov archive {uri}; quantgov doctor; then again: quantgov spot-check {uri}{options}"
    if stated["unclear"]:
        return f"run it with the libraries and on a machine of the evaluation, or evaluate again: quantgov evaluate {uri} --tasks DIR"
    return f"more items: quantgov spot-check {uri} --items {2 * items}{options}"


def _show(numbers: dict[str, Any]) -> None:
    """What was looked at, what differs, and what would have stayed hidden."""
    stdout.print(f"{numbers['reason']}", markup=False)
    stdout.print(
        f"items  {numbers['items']:,} of {numbers['of']:,}; {numbers['differ']} differ, {numbers['unclear']} unclear"
    )
    if numbers["items"]:
        shares = ", ".join(f"{share} {chance:.2g}" for share, chance in numbers["hidden"].items())
        stdout.print(f"a forgery of so many items would have stayed hidden with probability  {shares}")
    for one in numbers["differing"]:
        print_note(one)

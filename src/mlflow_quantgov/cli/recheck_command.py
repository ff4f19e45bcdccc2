"""`quantgov recheck`: what stands at protected aliases and stages, and what would be refused today."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.cli.output import coloured, json_option, print_fix, print_json, print_note, stdout
from mlflow_quantgov.errors import pasted
from mlflow_quantgov.gate.clients.answers import decision_from_dict


@click.command()
@click.argument("name", required=False)
@json_option
def recheck(name: str | None, as_json: bool) -> int:
    """Judge again, by today's policy, every version at a protected alias or stage (of the model NAME); nothing is moved.

    Exit codes: 0 all would be allowed, 1 or 3 as for `check`, 4 where files are not those that were judged.
    """
    from mlflow_quantgov import api

    found = []
    for one in api.recheck(name):
        found.append(one)
    if as_json:
        print_json({"ok": exit_code(found) == 0, "pointers": found})
    elif found:
        _show(found)
    else:
        stdout.print("nothing stands at a protected alias or stage")
    return exit_code(found)


def exit_code(found: Sequence[dict[str, Any]]) -> int:
    """Where several hold: 4, then 1, then 3. What the ledger does not know is refused, whatever its evidence."""
    if any(one["altered"] for one in found):
        return 4
    codes = {decision_from_dict(one["decision"]).exit_code for one in found}
    codes |= {1 for one in found if not one["standing"]["believed"]}
    return next((code for code in (1, 3) if code in codes), 0)


def _show(found: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("model", "version", "stands at", "how", "today", "why"):
        table.add_column(column, overflow="fold")
    for one in found:
        stood, decision = one["standing"], decision_from_dict(one["decision"])
        table.add_row(
            stood["model"], stood["version"], stood["destination"], _how(stood),
            coloured("altered", as_="refused") if one["altered"] else coloured("allowed" if decision.allowed else "refused"),
            _why(one),
        )  # fmt: skip
    stdout.print(table)
    for one in found:
        decision = decision_from_dict(one["decision"])
        if not decision.allowed:
            first = next((check.fix for check in decision.checks if check.refuses and check.fix), "")
            if first:
                print_fix(first)
        if not one["standing"]["believed"]:
            uri = pasted(f"models:/{decision.model}/{decision.version}")
            print_note(
                f"{decision.model}{decision.destination} is not loaded: {one['standing']['words']}", word="refused"
            )
            print_fix(f"quantgov promote {uri} --to {pasted(decision.destination)}")


def _how(stood: dict[str, Any]) -> Text:
    left = stood["days_left"]
    said = f"{stood['how']}, {max(left, 0)} days left" if left is not None else stood["how"]
    return coloured(
        said, as_="allowed" if stood["how"] == "approved" else "refused" if not stood["believed"] else "waived"
    )


def _why(one: dict[str, Any]) -> str:
    decision, stood = decision_from_dict(one["decision"]), one["standing"]
    said = ["the files or their source are not those that were judged"] if one["altered"] else []
    said += [f"{check.check}: {check.reason}" for check in decision.checks if check.refuses]
    said += [decision.summary] if not decision.allowed and not decision.checks else []
    said += [stood["words"]] if stood["how"] != "approved" else []
    return "; ".join(said)

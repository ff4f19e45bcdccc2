"""`quantgov audit`: the ledger."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from mlflow_quantgov.cli.output import coloured, json_option, plain, print_json, stdout


@click.group()
def audit() -> None:
    """Show and verify the append-only record of decisions."""


@audit.command()
@click.option("--model", help="Only rows of this registered model.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@json_option
def log(model: str | None, limit: int, as_json: bool) -> None:
    """Print the newest rows of the ledger."""
    from rich.table import Table

    from mlflow_quantgov.gate.client import require_gate

    rows = require_gate("show its ledger").ledger(model, limit)
    if as_json:
        print_json({"rows": rows})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("row", "time (UTC)", "what", "model", "version", "destination", "decision", "who"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            str(row.get("seq")),
            str(row.get("created_at", ""))[:19].replace("T", " "),
            ": ".join(str(part) for part in (row.get("kind"), row.get("about")) if part),
            plain(row.get("model") or ""),
            plain(row.get("version") or ""),
            plain(row.get("destination") or ""),
            _decision(row),
            plain(f"{row.get('actor') or 'unknown'} ({row.get('actor_source') or 'not known how'})"),
        )
    stdout.print(table)


def _decision(row: dict[str, Any]) -> Text:
    """What was decided, with what was waived for it in red."""
    waived = row.get("waived") or ()
    said = coloured(f" ({', '.join(waived)} waived)" if waived else "", as_="waived")
    return Text.assemble(coloured(str(row.get("decision") or "")), said)


@audit.command()
@json_option
def verify(as_json: bool) -> int:
    """Recompute the hash chain; exit 4 where a row was changed."""
    from mlflow_quantgov.gate.client import require_gate

    found = require_gate("verify its ledger").verify()
    if as_json:
        print_json(found)
    elif found["ok"]:
        stdout.print(coloured("pass"), f" {found['rows']} rows, chain unbroken")
    else:
        stdout.print(coloured("fail"), f" the first bad row is {found['first_bad']} of {found['rows']}")
    return 0 if found["ok"] else 4

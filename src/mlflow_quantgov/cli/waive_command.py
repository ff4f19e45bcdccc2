"""`quantgov waive`: one exception, by name, for a time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from mlflow_quantgov.cli.dates import end
from mlflow_quantgov.cli.measuring import key_option
from mlflow_quantgov.cli.output import coloured, json_option, print_json, print_note, stdout


@click.command()
@click.argument("uri")
@click.argument("check")
@click.option("--reason", required=True, help="Why, in words that an auditor will read.")
@click.option(
    "--until",
    required=True,
    metavar="DATE",
    type=end,
    help="When it ends: a date (the end of that day, UTC) or a time.",
)
@key_option
@json_option
def waive(uri: str, check: str, reason: str, until: datetime, key: Path | None, as_json: bool) -> None:
    """Take the responsibility for one CHECK of one version, with a key that has the role `waiver`.

    The check stays red everywhere, the answer of the self-audit stays no. `identity` and `lineage` cannot be waived.
    """
    from mlflow_quantgov import api

    result = api.waive(uri, check, reason=reason, until=until, key=key)
    if as_json:
        print_json(result)
        return
    stdout.print(coloured("waived", bold=True), f" {check} of {uri} until {until.isoformat()[:10]}: {reason}")
    print_note(f"shown in red wherever the version is shown; statement {result['statement_digest']}")

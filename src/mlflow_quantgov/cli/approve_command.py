"""`quantgov approve`: one person agrees that one version may stand at one destination."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from mlflow_quantgov.cli.dates import end
from mlflow_quantgov.cli.measuring import key_option
from mlflow_quantgov.cli.output import coloured, json_option, print_json, print_note, stdout


@click.command()
@click.argument("uri")
@click.option("--to", required=True, help="@alias or a stage; it counts there and nowhere else.")
@click.option("--until", metavar="DATE", type=end, help="When it ends: a date (the end of that day, UTC) or a time.")
@click.option("--reason", help="Words that an auditor will read.")
@click.option("--withdraw", is_flag=True, help="Take back whatever the same person approved of this version there.")
@key_option
@json_option
def approve(
    uri: str, to: str, until: datetime | None, reason: str | None, withdraw: bool, key: Path | None, as_json: bool
) -> None:
    """Agree that a version may stand at a protected alias or stage, by a key that has the role that the policy names.

    It counts for these files of this version, under the policy in force, until it ends or is withdrawn; never for whoever asks.
    """
    from mlflow_quantgov import api

    result = api.approve(uri, to, key=key, until=until, reason=reason, withdraw=withdraw)
    if as_json:
        print_json(result)
        return
    ends = f" until {until.isoformat()[:10]}" if until and not withdraw else ""
    stdout.print(
        coloured("withdrawn" if withdraw else "approved", bold=True, as_="refused" if withdraw else "allowed"),
        f" {uri} at {to}{ends}",
    )
    who = ", ".join(str(one["name"]) for one in result.get("signed_by", ()) if one.get("name"))
    print_note(f"{f'by {who}; ' if who else ''}statement {result['statement_digest']}")

"""`quantgov attach`: evidence that was made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.measuring import key_option
from mlflow_quantgov.cli.output import json_option, print_json, stdout


@click.command()
@click.argument("uri")
@click.argument("statement", type=click.Path(path_type=Path))
@key_option
@json_option
def attach(uri: str, statement: Path, key: Path | None, as_json: bool) -> None:
    """Attach STATEMENT.json, bare or in a DSSE envelope, to a version; evidence about other bytes is refused.

    With --key a bare statement is signed first: whoever signs vouches for what it says.
    """
    from mlflow_quantgov import api

    result = api.attach(uri, statement, key=key)
    if as_json:
        print_json(result)
    else:
        stdout.print(f"{result['kind']} attached  {result['statement_digest']}")
        for one in result.get("signed_by", ()):
            stdout.print(f"signed by {one['name'] or one['key'][:19]}: {one['standing']}")

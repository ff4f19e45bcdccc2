"""`quantgov attach`: evidence that was made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.output import json_option, print_json, stdout


@click.command()
@click.argument("uri")
@click.argument("statement", type=click.Path(path_type=Path))
@json_option
def attach(uri: str, statement: Path, as_json: bool) -> None:
    """Attach STATEMENT.json to a version; evidence about other bytes is refused."""
    from mlflow_quantgov import api

    result = api.attach(uri, statement)
    if as_json:
        print_json(result)
    else:
        stdout.print(f"{result['kind']} attached  {result['statement_digest']}")

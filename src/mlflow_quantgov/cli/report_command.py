"""`quantgov report`: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.output import json_option, print_json, stdout


@click.command()
@click.argument("uri")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="HTML file to write.")
@click.option("--to", default="@champion", show_default=True, help="Destination that the report judges.")
@json_option
def report(uri: str, output: Path, to: str, as_json: bool) -> None:
    """Write lineage, evidence and verdict of a version as one HTML file."""
    from mlflow_quantgov import api

    decision = api.report(uri, output, to)
    if as_json:
        print_json({"path": str(output), "decision": "allowed" if decision.allowed else "refused"})
    else:
        stdout.print(f"{output} written")

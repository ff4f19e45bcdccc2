"""`quantgov inspect`: what an artifact really is."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else on stdout.")
def inspect(path: Path, as_json: bool) -> None:
    """Read a model folder or file and say what it is, from tensors and headers alone."""
    from mlflow_quantgov.artifact.inspect import inspect as read

    found = read(path).quantization
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    from mlflow_quantgov.artifact.describe import headline, rows
    from mlflow_quantgov.cli.output import pairs_table, print_note

    pairs_table(f"{path.name}: {headline(found)}", rows(found))
    for warning in found.warnings:
        print_note(warning, word="warning")

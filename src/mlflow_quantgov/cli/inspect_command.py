"""`quantgov inspect`: what an artifact really is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlflow_quantgov.artifact.quantization import Inspection
    from mlflow_quantgov.policy.schema import ParentPin


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else on stdout.")
@click.option(
    "--pin", "pins", is_flag=True, help="Also hash its files, for the line that allows it as a parent in a policy."
)
def inspect(path: Path, as_json: bool, pins: bool) -> None:
    """Read a model folder or file and say what it is, from tensors and headers alone."""
    from mlflow_quantgov.artifact.inspect import inspect as read
    from mlflow_quantgov.artifact.inspect import inspect_model

    inspection = inspect_model(path) if pins else read(path)
    found, pin = inspection.quantization, _pin(path, inspection) if pins else None
    if as_json:
        print(json.dumps(found.to_dict() | ({"pin": pin.model_dump(mode="json")} if pin else {}), indent=2))
        return
    from mlflow_quantgov.artifact.describe import headline, rows
    from mlflow_quantgov.cli.output import pairs_table, print_note, print_pin

    pairs_table(f"{path.name}: {headline(found)}", rows(found))
    for warning in found.warnings:
        print_note(warning, word="warning")
    if pin:
        print_pin(pin.line)


def _pin(path: Path, inspection: Inspection) -> ParentPin:
    """Weights and behaviour of a parent; reads all of its bytes."""
    from mlflow_quantgov.lineage import facts_of
    from mlflow_quantgov.policy.schema import ParentPin

    return ParentPin.of(facts_of(path, inspection))

"""`quantgov quantize` and `quantgov reproduce`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import json_option, pairs_table, print_json, print_note
from mlflow_quantgov.evidence.predicates import Reproduction

_SHOWN = 10


@click.command()
@click.argument("parent", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--recipe", required=True, type=click.Path(path_type=Path), help="YAML file: quantizer, version, arguments."
)
@click.option("--calibration", type=click.Path(path_type=Path), help="The file whose digest the recipe names.")
@json_option
def quantize(parent: Path, output: Path, recipe: Path, calibration: Path | None, as_json: bool) -> None:
    """Quantize a full-precision model as a recipe says."""
    from mlflow_quantgov import api
    from mlflow_quantgov.artifact.manifest import build_manifest

    made = api.quantize(parent, output, recipe, calibration=calibration)
    result = {"path": str(made), "digest": build_manifest(made).weights_digest}
    if as_json:
        print_json(result)
    else:
        pairs_table("quantized", result)


@click.command()
@click.argument("uri")
@click.option("--recipe", type=click.Path(path_type=Path), help="YAML file; default: what was recorded at logging.")
@click.option("--calibration", type=click.Path(path_type=Path), help="The file whose digest the recipe names.")
@click.option("--checkpoint", help="The trained version that was quantized; default: the parent.")
@key_option
@json_option
def reproduce(
    uri: str, recipe: Path | None, calibration: Path | None, checkpoint: str | None, key: Path | None, as_json: bool
) -> None:
    """Run a version's recipe again on its parent, and compare byte by byte. Exits with 1 where they differ."""
    from mlflow_quantgov import api

    statement = measure(
        "reproduce",
        lambda progress: api.reproduce(
            uri, recipe, calibration=calibration, checkpoint=checkpoint, progress=progress, key=key
        ),
        as_json=as_json,
    )
    content = statement.content()
    assert isinstance(content, Reproduction)
    for one in content.differences[:_SHOWN] if not as_json else ():
        print_note(f"{one.name}: {one.problem}", word="differs")
    if len(content.differences) > _SHOWN and not as_json:
        print_note(f"{len(content.differences) - _SHOWN} more differ; the report lists them all")
    if content.stated()["outcome"] != "pass":
        sys.exit(1)

"""`quantgov log-parent` and `quantgov log`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlflow_quantgov.cli.output import json_option, pairs_table, print_json, print_pin


@click.command(name="log-parent")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the logged model.")
@click.option("--register", required=True, help="Registered model to make it a version of.")
@click.option("--target", help="Name or path of the target on which it can serve after a rollback.")
@json_option
def log_parent(path: Path, name: str, register: str, target: str | None, as_json: bool) -> None:
    """Log and register a full-precision parent."""
    from mlflow_quantgov.flavor import log_parent as write

    info = write(path, name=name, registered_model_name=register, target=target)
    _report(info, register, as_json, is_parent=True)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--parent", required=True, help="models:/NAME/VERSION that it was quantized from.")
@click.option("--target", required=True, help="Name or path of the deployment target.")
@click.option("--name", required=True, help="Name of the logged model.")
@click.option("--register", required=True, help="Registered model to make it a version of.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Data that the quantizer saw.")
@click.option("--production", type=click.Path(path_type=Path), help="Sample of production traffic.")
@click.option("--source", help="Where the calibration data came from, in words.")
@click.option("--license", help="Licence of the calibration data.")
@click.option("--tasks", type=click.Path(path_type=Path), help="Tasks whose items must not be in the calibration data.")
@click.option("--recipe", type=click.Path(path_type=Path), help="YAML file: how it was quantized.")
@json_option
def log(
    path: Path,
    parent: str,
    target: str,
    name: str,
    register: str,
    calibration: Path | None,
    production: Path | None,
    source: str | None,
    license: str | None,
    tasks: Path | None,
    recipe: Path | None,
    as_json: bool,
) -> None:
    """Log and register a quantized model against its parent."""
    from mlflow_quantgov.evidence.calibration_data import CalibrationData
    from mlflow_quantgov.flavor import log_model

    if calibration is None and (production or source or license or tasks):
        raise click.UsageError(
            "--production, --source, --license and --tasks say something about --calibration FILE, which is not given"
        )
    data = CalibrationData(calibration, production, source, license, tasks) if calibration is not None else None
    info = log_model(
        path,
        name=name,
        parent=parent,
        target=target,
        calibration=data,
        registered_model_name=register,
        recipe=recipe,
    )
    _report(info, register, as_json)


def _report(info: Any, register: str, as_json: bool, *, is_parent: bool = False) -> None:
    from mlflow_quantgov.artifact.behaviour import behaviour_digest
    from mlflow_quantgov.flavor.download import local_model
    from mlflow_quantgov.policy.schema import ParentPin

    uri = f"models:/{register}/{info.registered_model_version}"
    model = local_model(uri)
    pin = ParentPin(weights=model.manifest().weights_digest, behaviour=behaviour_digest(model.artifact))
    result = {"model_uri": uri, "model_id": info.model_id, "digest": pin.weights, "behaviour": pin.behaviour}
    if as_json:
        print_json(result)
        return
    pairs_table("logged", result)
    if is_parent:
        print_pin(pin.line)

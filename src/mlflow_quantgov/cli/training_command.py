"""`quantgov training`."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import json_option


@click.command()
@click.argument("uri")
@click.option("--checkpoint", required=True, help="Registered version with the trained full-precision weights.")
@click.option("--run", required=True, help="MLflow run id, or another name under which the run can be found.")
@click.option("--steps", required=True, type=click.IntRange(min=1), help="Optimizer steps.")
@click.option("--data", required=True, help="The training data: a file, or its digest (sha256:...).")
@click.option("--code", required=True, help="Commit or release of the training code.")
@key_option
@json_option
def training(
    uri: str, checkpoint: str, run: str, steps: int, data: str, code: str, key: Path | None, as_json: bool
) -> None:
    """State which quantization-aware training made the checkpoint that a version is rounded from.

    The gate finds the checkpoint by itself, and compares it with the original and with the quantized weights.
    """
    from mlflow_quantgov import api

    measure(
        "training",
        lambda progress: api.record_training(
            uri, checkpoint, run=run, steps=steps, data=data, code_version=code, key=key
        ),
        as_json=as_json,
    )

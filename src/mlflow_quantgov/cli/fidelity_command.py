"""`quantgov fidelity`: how far the distributions moved."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.measuring import measure
from mlflow_quantgov.cli.output import json_option


@click.command()
@click.argument("uri")
@click.option("--text", required=True, type=click.Path(path_type=Path), help="Production-like text or JSONL.")
@click.option("--runtime", help="Runtime for both sides; default: the target's.")
@json_option
def fidelity(uri: str, text: Path, runtime: str | None, as_json: bool) -> None:
    """Measure KL divergence, same-top-token rate and perplexity against the parent."""
    from mlflow_quantgov import api

    measure(
        "fidelity",
        lambda progress: api.measure_fidelity(uri, text, runtime=runtime, progress=progress),
        as_json=as_json,
    )

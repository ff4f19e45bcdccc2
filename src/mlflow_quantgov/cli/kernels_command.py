"""`quantgov kernels`: which kernel serves a version."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import json_option, print_note
from mlflow_quantgov.evidence.predicates import Kernels


@click.command()
@click.argument("uri")
@click.option("--target", help="Name or path of a target; default: the version's own.")
@key_option
@json_option
def kernels(uri: str, target: str | None, key: Path | None, as_json: bool) -> None:
    """Look up the kernel for the target, and probe what the runtime here really selects."""
    from mlflow_quantgov import api

    statement = measure(
        "kernels", lambda progress: api.confirm_kernels(uri, target, progress=progress, key=key), as_json=as_json
    )
    content = statement.content()
    if isinstance(content, Kernels) and content.not_probed_because:
        print_note(f"not probed here: {content.not_probed_because}", error=True)

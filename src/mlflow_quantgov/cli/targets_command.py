"""`quantgov targets`: list them, or write this machine's fingerprint as one."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.output import json_option, print_json, stdout


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def targets(context: click.Context, as_json: bool) -> None:
    """List the known deployment targets."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from mlflow_quantgov.evidence.targets import list_targets

    found = list_targets()
    if as_json:
        print_json([target.model_dump(mode="json", by_alias=True) for target in found])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "runtime", "formats, best first", "hardware", "benchmark"):
        table.add_column(column, overflow="fold")
    for target in found:
        kind = "captured" if target.hardware.fingerprint else "template"
        table.add_row(target.name, target.runtime, ", ".join(target.formats), target.hardware.device, kind)
    stdout.print(table)


@targets.command()
@click.argument("name")
@click.option(
    "--from", "base", default="cpu-llamacpp", show_default=True, help="Target whose runtime and loads it takes."
)
@click.option("--output", type=click.Path(path_type=Path), help="File to write; default NAME.yaml in this folder.")
@json_option
def capture(name: str, base: str, output: Path | None, as_json: bool) -> None:
    """Write a target NAME with the fingerprint of this machine."""
    from mlflow_quantgov.evidence.targets import capture as write
    from mlflow_quantgov.evidence.targets import find_target

    destination = output or Path(f"{name}.yaml")
    captured = write(name, find_target(base), destination)
    if as_json:
        print_json({"path": str(destination), "digest": captured.digest, "name": captured.name})
    else:
        stdout.print(f"{destination} written: {captured.name}, {captured.digest}")
        stdout.print(f"use it with --target {destination}")

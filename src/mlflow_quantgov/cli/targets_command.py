"""`quantgov targets`: list them, or write this machine's fingerprint as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_quantgov.cli.output import json_option, pairs_table, print_fix, print_json, stdout

if TYPE_CHECKING:
    from mlflow_quantgov.evidence.predicates import Fingerprint


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
        machine = captured.hardware.fingerprint
        if machine is not None:
            pairs_table("\nThis machine", described(machine))
        loads = [f"batch {one.batch}, {one.prompt_tokens} + {one.output_tokens} tokens" for one in captured.loads]
        demand = {"loads": "; ".join(loads), "what counts": captured.phase, "has to improve": captured.must_improve}
        pairs_table(f"\nTaken from {base}; change the file before a version is logged for it", demand)
        print_fix(f"quantgov log PATH --target {destination}", word="Use it:")


def described(machine: Fingerprint) -> dict[str, Any]:
    """A fingerprint as people read it; None where there is nothing to say."""
    flags, libraries = " ".join(machine.cpu_flags), machine.libraries or {}
    gpu = machine.accelerator
    if gpu is not None and machine.accelerators:
        memory = (machine.accelerator_memory_bytes or 0) / 1e9
        gpu = f"{machine.accelerators} x {gpu}, {memory:.0f} GB, capability {machine.compute_capability}"
    return {
        "CPU": f"{machine.cpu_model} ({machine.cpu_id or machine.machine})",
        "instruction sets": flags or "none that decide kernels",
        "cores": f"{machine.cores}{f', quota {machine.cpu_limit:g}' if machine.cpu_limit else ''}",
        "memory": f"{machine.memory_bytes / 1e9:.1f} GB",
        "GPU": gpu or "none",
        "GPU driver": machine.driver,
        "system": machine.system,
        "libraries": ", ".join(f"{name} {version}" for name, version in libraries.items()) or "none that run models",
    }

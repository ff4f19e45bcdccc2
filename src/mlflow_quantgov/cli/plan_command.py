"""`quantgov plan`: which format, from the deployment backward."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.cli.output import json_option, print_json, print_note, stdout

if TYPE_CHECKING:
    from mlflow_quantgov.evidence.targets import Target
    from mlflow_quantgov.policy.release_steps import Step
    from mlflow_quantgov.release_planning import Option, ReleasePlan


@click.command()
@click.option("--target", required=True, help="Name or path of the target that will serve (see: quantgov targets).")
@click.option("--parent", help="Full-precision model, a URI, folder or file: gives sizes, and shapes to kernels.")
@click.option("--choose", type=click.IntRange(1), default=1, show_default=True, help="Whose commands to print.")
@click.option("--to", help="Destination whose gate is planned for; default: the one that asks for most.")
@json_option
def plan(target: str, parent: str | None, choose: int, to: str | None, as_json: bool) -> None:
    """Before quantizing: what the target serves well, best first, and the evidence that will be asked for."""
    from mlflow_quantgov.release_planning import plan_release

    found = plan_release(target, parent, choose=choose, to=to)
    if as_json:
        print_json(found.to_dict())
        return
    _heading(found)
    if found.best:
        _options("Served well, best first", found.best, found)
    if found.open:
        _options("Not known: measure before you rely on it", found.open, found, numbered=not found.best)
    _avoid(found)
    for note in found.notes:
        print_note(note)
    _steps(found)


def _heading(found: ReleasePlan) -> None:
    from mlflow_quantgov.release_planning import PRINCIPLE

    target = found.target
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("target", f"{target.name}: {target.description}")
    table.add_row("runs in", f"{target.runtime} {target.runtime_version or '(any version)'} on {_hardware(target)}")
    loads = "; ".join(
        f"batch {one.batch}, {one.prompt_tokens} prompt and {one.output_tokens} output tokens" for one in target.loads
    )
    better = {"both": "speed and memory", "speed": "speed", "memory": "memory"}[target.must_improve]
    table.add_row("must gain", f"{better}, at {loads}")
    if found.table_version:
        table.add_row("kernels read", f"{target.runtime} {found.table_version}")
    if found.parent_parameters is not None:
        size = f", {_size(found.parent_bytes)}" if found.parent_bytes else ""
        table.add_row("parent", f"{found.parent_parameters:,} parameters{size}")
    stdout.print(table)
    stdout.print()
    stdout.print(Text(PRINCIPLE, style="dim"))


def _hardware(target: Target) -> str:
    hardware = target.hardware
    if hardware.device == "endpoint":
        return "somebody else's server"
    known = list(filter(None, (hardware.device.upper(), hardware.architecture)))
    if hardware.compute_capability:
        known.append(f"compute capability {' or '.join(hardware.compute_capability)}")
    if hardware.device == "cpu":
        flags = hardware.instruction_sets
        known.append("instruction sets not stated" if flags is None else " ".join(flags) or "no special instructions")
    return ", ".join(known)


def _options(title: str, options: tuple[Option, ...], found: ReleasePlan, *, numbered: bool = True) -> None:
    stdout.print()
    stdout.print(Text(title, style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("weights", overflow="fold")
    table.add_column("container", no_wrap=True)
    table.add_column("bits" if found.parent_parameters is None else "bits, size", no_wrap=True)
    table.add_column("calibrates", no_wrap=True)
    table.add_column("made by", overflow="fold")
    table.add_column("kernel", overflow="fold")
    for number, one in enumerate(options, 1):
        made = one.suggestion
        size = "" if one.size_bytes is None else f", {_size(one.size_bytes)}"
        name = Text(made.name)
        if one.trained:
            name.append(" (needs training)", style="yellow")
        kernel = one.kernel.kernel or "-"
        if one.kernel.depends_on:
            kernel = f"it depends on {' and '.join(one.kernel.depends_on)}"
        table.add_row(
            str(number) if numbered else "",
            name,
            made.format,
            f"{one.bits_per_weight:.2f}{size}",
            "yes" if made.calibrates else "no",
            made.quantizer or "another tool",
            kernel,
        )
    stdout.print(table)


def _avoid(found: ReleasePlan) -> None:
    from mlflow_quantgov.release_planning import families

    listed = [
        (kernel, group) for kernel, group in families(found.avoid) if kernel.support not in {"optimized", "unknown"}
    ]
    if not listed:
        return
    stdout.print()
    stdout.print(Text("To avoid there", style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("it", no_wrap=True)
    table.add_column("weights", overflow="fold", ratio=2)
    table.add_column("because", overflow="fold", ratio=3)
    for kernel, group in listed:
        names = [one.suggestion.name for one in group]
        formats = list(dict.fromkeys(one.suggestion.format for one in group))
        shown = ", ".join(names) if len(names) <= 2 else ", ".join(formats)
        table.add_row(Text(kernel.support.replace("-", " "), style="red"), shown, f"{kernel.source} ({kernel.row})")
    stdout.print(table)


def _steps(found: ReleasePlan) -> None:
    if found.chosen is None:
        return
    stdout.print()
    stdout.print(
        Text.assemble(
            ("Then, for ", "bold"),
            (found.chosen.suggestion.name, "bold cyan"),
            (f", what {found.policy} asks at {found.destination}, cheapest first", "bold"),
        )  # fmt: skip
    )
    for number, step in enumerate(found.steps, 1):
        _step(number, step)
    if len(found.best or found.open) > 1:
        print_note("--choose 2 prints the commands of the second; --json holds every recipe")


def _step(number: int, step: Step) -> None:
    head = Text(f"{number}. {step.title}")
    if step.cost:
        head.append(f"  ({step.cost})", style="dim")
    stdout.print()
    stdout.print(head)
    if step.checks:
        stdout.print(Padding(Text(f"answers {', '.join(step.checks)}", style="dim"), (0, 0, 0, 3)))
    for command in step.commands:
        for line in command.splitlines():
            stdout.print(f"   {line}", style="cyan", soft_wrap=True)
    if step.note:
        stdout.print(Padding(Text(step.note), (0, 0, 0, 3)))


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

"""`quantgov plan`: which format, from the deployment backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.cli.output import json_option, print_json, print_note, stdout

if TYPE_CHECKING:
    from mlflow_quantgov.evidence.targets import Target
    from mlflow_quantgov.policy.release_steps import Step
    from mlflow_quantgov.release_planning import Option, ReleasePlan


_COMMON = {"made as": "all are made as", "kernel": "all run in"}
"""Column to what is said where it is the same in every row."""
_WORDS = {
    "emulates": "the weights stay packed, and are expanded again before every product",
    "dequantizes": "the weights are expanded once, on loading, so that nothing quantized runs",
}
"""Of the answers of the kernel table, those that do not say it by themselves."""


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
    if found.target.hardware.device == "endpoint":
        stdout.print()
        stdout.print(f"The server takes {', '.join(found.target.formats)}, by what the target says.")
    elif found.open:
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
    """A table of what differs, and below it what all have in common."""
    from mlflow_quantgov.artifact.quantizers.suggestions import PUBLISHED

    stdout.print()
    stdout.print(Text(title, style="bold"))
    columns = {
        "made as": [_made(one) for one in options],
        "kernel": [_kernel(one) for one in options],
    }
    common = {name: values[0] for name, values in columns.items() if len(set(values)) == 1 and len(options) > 1}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    if numbered:
        table.add_column("", justify="right", no_wrap=True)
    table.add_column("weights", min_width=18)
    table.add_column("bits" if found.parent_parameters is None else "bits, size", no_wrap=True)
    damage = any(one.suggestion.published_kl is not None for one in options)
    if damage:
        table.add_column("KL", justify="right", no_wrap=True)
    for name in columns:
        if name not in common:
            table.add_column(name, min_width=20 if name == "made as" else 18)
    for number, one in enumerate(options):
        size = "" if one.size_bytes is None else f", {_size(one.size_bytes)}"
        cells: list[Any] = [str(number + 1)] if numbered else []
        cells += [_weights(one), f"{one.bits_per_weight:.2f}{size}"]
        cells += [f"{one.suggestion.published_kl:.3f}" if one.suggestion.published_kl else ""] * damage
        cells += [values[number] for name, values in columns.items() if name not in common]
        table.add_row(*cells)
    stdout.print(table)
    of = "each quantized weight" if found.parent_parameters is None else "each weight of the whole model, about"
    said = [f"bits: of {of}, scales counted"]
    said += [f"KL: how far the next token's distribution moved, by {PUBLISHED}"] * damage
    said += [f"{_COMMON[name]}: {value}" for name, value in common.items()]
    for line in said:
        stdout.print(Text(line, style="dim"))


def _made(one: Option) -> str:
    made = one.suggestion
    return f"{made.format} by {made.quantizer or 'another tool'}{', calibrated' if made.calibrates else ''}"


def _weights(one: Option) -> Text:
    """Its name, and what is stored for those to whom the name says nothing."""
    made = one.suggestion
    text = Text(made.name)
    if made.format == "gguf":
        text.append(f": {made.bits:g} bit, groups of {made.group_size}")
    if one.trained:
        text.append(" (needs training)", style="yellow")
    return text


def _kernel(one: Option) -> str:
    from mlflow_quantgov.evidence.kernel_table import WORDS

    if one.kernel.depends_on:
        return f"depends on {' and '.join(WORDS[name] for name in one.kernel.depends_on)}"
    return one.kernel.kernel or "none is named"


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
    table.add_column("", no_wrap=True)
    table.add_column("weights", ratio=2)
    table.add_column("because", overflow="fold", ratio=3)
    for kernel, group in listed:
        names = [one.suggestion.name for one in group]
        formats = list(dict.fromkeys(one.suggestion.format for one in group))
        shown = ", ".join(names) if len(names) <= 2 else ", ".join(formats)
        table.add_row(Text(kernel.support.replace("-", " "), style="red"), shown, kernel.source)
    stdout.print(table)
    for word in dict.fromkeys(kernel.support for kernel, _ in listed):
        if word in _WORDS:
            stdout.print(Text(f"{word}: {_WORDS[word]}", style="dim"))


def _steps(found: ReleasePlan) -> None:
    if not found.steps:
        return
    stdout.print()
    name = found.chosen.suggestion.name if found.chosen else "whatever it serves"
    asks = f", what the policy {found.policy} asks at {found.destination}, cheapest first"
    stdout.print(Text.assemble(("Then, for ", "bold"), (name, "bold cyan"), (asks, "bold")))
    for number, step in enumerate(found.steps, 1):
        _step(number, step)
    if found.chosen and len(found.best or found.open) > 1:
        stdout.print()
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
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.{1 if size < 100 * bytes_ else 0}f} {unit}"
    return f"{size / 1e3:.0f} kB"

"""`quantgov benchmark`: speed and memory against the parent, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.cli.measuring import measure
from mlflow_quantgov.cli.output import json_option, stdout
from mlflow_quantgov.evidence.predicates import Benchmark
from mlflow_quantgov.evidence.predicates.benchmark_v2 import Try

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("uri")
@click.option("--target", help="Name or path of a target; default: the version's own.")
@click.option(
    "--minutes",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, 1440, min_open=True),
    help="Time for the rounds; the seven that give a bound are run however long they take.",
)
@click.option(
    "--width",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 10, min_open=True),
    help="Relative width of the interval of the ratio at which the rounds end.",
)
@click.option("--rounds", type=click.IntRange(7, 1000), help="Exactly so many rounds instead.")
@click.option(
    "--served",
    nargs=2,
    type=_PATH,
    metavar="PARENT.yaml QUANTIZED.yaml",
    help="Time the endpoints that these files describe, instead of running the models here.",
)
@json_option
def benchmark(
    uri: str,
    target: str | None,
    minutes: float,
    width: float,
    rounds: int | None,
    served: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Time the version against its parent on this machine, at the target's loads.

    Each side runs in a process of its own. A short heat first finds the fastest of its lossless configurations; then both
    are timed in turn, in an order that a coin decides, until the interval of the ratio is narrow or the time is up. A run that
    was killed leaves nothing behind, and is run again from the start: speeds of two moments are not compared.
    """
    from mlflow_quantgov import api

    statement = measure(
        "benchmark",
        lambda progress: api.benchmark(
            uri, target, minutes=minutes, width=width, rounds=rounds, served=served, progress=progress
        ),
        as_json=as_json,
        show=lambda numbers: None,
    )
    content = statement.content()
    if not as_json and isinstance(content, Benchmark):
        _show(content)


def _show(content: Benchmark) -> None:
    """What was found, with units; then how each side ran."""
    summary = content.stated()
    for load in summary["loads"]:
        stdout.print(Text(f"\n{_title(load)}", style="bold"))
        stdout.print(_table(load))
    if not content.provenance.imported:
        stdout.print(Text("\nEach side in a process of its own", style="bold"))
        stdout.print(_resources(summary))
    for name, tries in (("parent", content.parent_tries), ("quantized", content.quantized_tries)):
        if tries:
            stdout.print(Text(f"\nConfigurations of the {name}", style="bold"), "(the fastest is taken)")
            stdout.print(_tried(tries))
    if content.parent_not_loaded is not None:
        free = f"{content.parent_not_loaded.free_memory_bytes / 1e9:.1f} GB were free"
        stdout.print(f"\nThe parent was tried and does not load here: {content.parent_not_loaded.error} ({free}).")
        stdout.print("The policy's floors decide.")
    machine = content.fingerprint
    if machine is None:
        stdout.print(f"\nThe hardware is not known: {content.hardware_unknown}. No policy lets that pass.")
    else:
        gpu = f", {machine.accelerator}" if machine.accelerator else ""
        memory = f"{machine.memory_bytes / 1e9:.0f} GB"
        runtime = f"{content.quantized.runtime} {content.quantized.version}"
        stdout.print(f"\non {machine.cpu_model}, {machine.cores} cores, {memory}{gpu}; {runtime}")
    stdout.print(f"{summary['reason'][:1].upper()}{summary['reason'][1:]}.")


def _title(load: dict[str, Any]) -> str:
    ended = {"narrow": "the interval is narrow", "time": "the time was up", "rounds": "as many as asked for"}
    return (
        f"Batch {load['batch']}, {load['prompt_tokens']} prompt + {load['output_tokens']} output tokens: "
        f"{load['rounds']} rounds ({ended[load['ended']]})"
    )


def _columns(table: Table, *names: str) -> Table:
    table.add_column("", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _table(load: dict[str, Any]) -> Table:
    table = _columns(Table(box=None, pad_edge=False, padding=(0, 2, 0, 0)), "parent", "quantized", "ratio", "bounds")
    for phase in ("decode", "prefill"):
        one = load[phase]
        bounds = "too few rounds" if one["ratio"] is not None else ""
        if one["ratio_low"] is not None:
            bounds = f"{one['ratio_low']:.2f} to {one['ratio_high']:.2f}"
        ratio = f"x{one['ratio']:.2f}" if one["ratio"] is not None else "-"
        table.add_row(f"{phase}, tokens/s", _number(one["parent"]), _number(one["quantized"]), ratio, bounds)
    for name, words in (("time_to_first_token_ms", "first token, ms"), ("request_ms", "whole request, ms")):
        for quantile in ("p50", "p95", "p99"):
            sides = (load[name]["parent"] or {}, load[name]["quantized"])
            values = [_number(side.get(quantile)) for side in sides]
            few = sides[1][quantile] is None
            needed = {"p50": 2, "p95": 20, "p99": 100}[quantile]
            table.add_row(f"{words}, {quantile}", *values, "", f"{needed} samples needed" if few else "")
    return table


def _resources(summary: dict[str, Any]) -> Table:
    table = _columns(Table(box=None, pad_edge=False, padding=(0, 2, 0, 0)), "parent", "quantized", "ratio")
    seconds = summary["load_seconds"]
    for key, words in (("cold", "load, s (files read from disk)"), ("warm", "load, s (files cached)")):
        table.add_row(words, _number(seconds["parent"][key]), _number(seconds["quantized"][key]), "")
    memory = summary["memory"]
    if memory["basis"] is None:
        table.add_row("memory", "not measured", "not measured", "")
    else:
        sides = [_number(memory[side] / 1e6 if memory[side] else None) for side in ("parent", "quantized")]
        ratio = f"x{memory['ratio']:.2f}" if memory["ratio"] is not None else "-"
        table.add_row(f"memory, MB ({memory['basis']})", *sides, ratio)
    return table


def _tried(tries: tuple[Try, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("prefill", justify="right", no_wrap=True)
    table.add_column("decode", justify="right", no_wrap=True)
    table.add_column("tokens/s at the first load", overflow="fold")
    for one in tries:
        first = one.speeds[0] if one.speeds else None
        speeds = [_number(first.prefill), _number(first.decode)] if first else ["-", "-"]
        table.add_row(one.configuration, *speeds, Text("taken", style="green") if one.chosen else one.failed or "")
    return table


def _number(value: float | None) -> str:
    """Three digits that count, without exponents."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

"""`quantgov benchmark`: speed and memory against the parent, on this machine."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import json_option, stdout
from mlflow_quantgov.evidence.benchmark_rows import Row, load_tables, resource_rows, try_rows, where
from mlflow_quantgov.evidence.predicates import Benchmark
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Try

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
@key_option
@json_option
def benchmark(
    uri: str,
    target: str | None,
    minutes: float,
    width: float,
    rounds: int | None,
    served: tuple[Path, Path] | None,
    key: Path | None,
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
            uri, target, minutes=minutes, width=width, rounds=rounds, served=served, progress=progress, key=key
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
    for title, rows in load_tables(summary):
        _print(title, rows, "bounds")
    if not content.provenance.imported:
        _print("Each side in a process of its own", resource_rows(summary))
    for name, tries in (("parent", content.parent_tries), ("quantized version", content.quantized_tries)):
        if tries:
            stdout.print(Text(f"\nConfigurations of the {name}", style="bold"), "(tokens/s; the fastest is taken)")
            stdout.print(_tried(tries))
    if content.parent_not_loaded is not None:
        free = f"{content.parent_not_loaded.free_memory_bytes / 1e9:.1f} GB were free"
        stdout.print(f"\nThe parent was tried and does not load here: {content.parent_not_loaded.error} ({free}).")
    stdout.print(f"\n{where(content)}")
    stdout.print(f"{summary['reason'][:1].upper()}{summary['reason'][1:]}.")


def _print(title: str, rows: list[Row], remarks: str = "") -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    for name in ("parent", "quantized", "ratio", remarks):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.what, row.parent, row.quantized, row.ratio, row.remark)
    stdout.print(Text(f"\n{title}", style="bold"))
    stdout.print(table)


def _tried(tries: tuple[Try, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for name in ("prefill", "decode"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for configuration, prefill, decode, remark in try_rows(tries):
        table.add_row(configuration, prefill, decode, Text(remark, style="green" if remark == "taken" else ""))
    return table

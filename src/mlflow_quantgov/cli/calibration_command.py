"""`quantgov calibration`: likeness of two files, recorded for a version where one is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import coloured, json_option, pairs_table, print_json, print_note, stdout
from mlflow_quantgov.evidence.predicates.calibration import Calibration

MOST_LAYERS = 5
_RIGHT = {"count", "share", "most", "at most", "error, calibration", "production", "times"}
EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


@click.command()
@click.argument("uri", required=False)
@click.option("--calibration", "data", required=True, type=click.Path(path_type=Path), help="What the quantizer saw.")
@click.option("--production", type=click.Path(path_type=Path), help="A sample of production traffic.")
@click.option("--tasks", type=click.Path(path_type=Path), help="Tasks whose items must not be in the calibration data.")
@click.option("--task", "names", multiple=True, metavar="NAME", help="Such a task, group or tag that lm-eval ships.")
@click.option("--source", help="Where the calibration data came from, in words.")
@click.option("--license", help="Licence of the calibration data.")
@click.option("--no-activations", is_flag=True, help="With URI: do not run the parent to compare what its layers see.")
@key_option
@json_option
def calibration(
    uri: str | None,
    data: Path,
    production: Path | None,
    tasks: Path | None,
    names: tuple[str, ...],
    source: str | None,
    license: str | None,
    no_activations: bool,
    key: Path | None,
    as_json: bool,
) -> int:
    """With URI, record calibration data for a version; without, compare two files before quantizing.

    Digests, counts and shares are recorded; no text leaves this machine. With URI the version's parent is run over both
    files where it runs here, at most 200 documents and 256 tokens each; a run that was killed goes on where it stopped.
    """
    if tasks is not None and names:
        raise click.UsageError("--tasks and --task are searched one at a time: run it once for each")
    if uri is not None:
        from mlflow_quantgov import api

        statement = measure(
            "calibration",
            lambda progress: api.assess_calibration(
                uri,
                data,
                production,
                source=source,
                license=license,
                tasks=tasks or names or None,
                activations=not no_activations,
                progress=progress,
                key=key,
            ),
            as_json=as_json,
            show=lambda numbers: _print_tests(numbers["tests"]),
        )
        content = statement.content()
        assert isinstance(content, Calibration)
        if not as_json:
            _print_layers(content)
            _print_faults(content.model_dump())
        return 0
    if production is None:
        raise click.UsageError("--production FILE is needed to compare two files")
    from mlflow_quantgov.evidence.measure.calibration import compare_files

    found = compare_files(data, production, tasks=tasks or names or None, source=source)
    if as_json:
        print_json(found)
    else:
        stdout.print(coloured(found["outcome"], bold=True), "", found["reason"])
        _print_tests(found["tests"])
        _print_faults(found)
    return EXIT_CODES[found["outcome"]]


def _print_tests(tests: Sequence[Mapping[str, Any]]) -> None:
    """One row per test of likeness: how far apart, between which bounds, how far is accepted."""
    from mlflow_quantgov.evidence.likeness import percentages

    table = _table("test", "apart", "bounds", "at most", "outcome", "needed")
    for test in tests:
        said, unit = percentages(test), "pairs" if test["statistic"] == "area-under-curve" else "spread"
        needed = test["documents_needed"]
        table.add_row(
            test["name"],
            f"{said['estimate']} of {unit}",
            f"{said['lower']} to {said['upper']}",
            said["threshold"],
            coloured(test["outcome"]),
            f"{needed:,} a side" if needed else "",
        )
    if table.row_count:
        stdout.print(Text("likeness", style="bold"))
        stdout.print(table)


def _print_layers(content: Calibration) -> None:
    """The layers that differ most, and what rounding costs each on either side."""
    if content.unobserved:
        print_note(content.unobserved)
    if not content.layers or content.observation is None:
        return
    table = _table("layer", "apart", "error, calibration", "production", "times")
    table.columns[0].overflow = "fold"
    for layer in sorted(content.layers, key=lambda one: -one.distance)[:MOST_LAYERS]:
        errors = (
            "not measured" if one is None else f"{100 * one:.3g} %"
            for one in (layer.calibration_error, layer.production_error)
        )
        times = "" if layer.ratio is None else f"{layer.ratio:.2f}"
        table.add_row(layer.name, f"{max(layer.distance, 0.0):.1%}", *errors, times)
    seen = content.observation
    said = f"({len(content.layers):,} layers, {seen.documents[0]:,} and {seen.documents[1]:,} documents; errors of their outputs)"
    stdout.print(Text("layers that differ most", style="bold"), said)
    stdout.print(table)


def _print_faults(found: dict[str, Any]) -> None:
    """Copies, and what great-expectations found: counts, never texts."""
    leaked = (
        f"{found['leaked_documents']:,}"
        if found["searched_tasks"]
        else "not looked for: give --tasks DIR, or no gate lets it pass"
    )
    copies = {
        "generic set": found["generic_set"] or "none recognised",
        "evaluation items among it": leaked,
        "copies of production documents": found["shared_with_production"],
    }
    pairs_table("copies", copies)
    expectations = found["expectations"]
    results = expectations.get("results", ())
    table = _table("fault", "count", "share", "most", "outcome")
    for one in results:
        if one["outcome"] != "pass":
            shares = f"{one['share']:.1%}", f"{one['threshold']:.0%}"
            table.add_row(one["name"], f"{one['count']:,}", *shares, coloured(one["outcome"]))
    if results:
        held = f"quality: {len(results) - table.row_count} of {len(results)} expectations hold"
        stdout.print(Text(held, style="bold"), f"({expectations['library']})")
    if table.row_count:
        stdout.print(table)
    if expectations.get("not_checked"):
        print_note(f"not checked: {expectations['not_checked']}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in _RIGHT else "left")
    return table

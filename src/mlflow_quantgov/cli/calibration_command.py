"""`quantgov calibration`: likeness of two files, recorded for a version where one is named."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.measuring import measure
from mlflow_quantgov.cli.output import coloured, json_option, number, print_json, stdout

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


@click.command()
@click.argument("uri", required=False)
@click.option("--calibration", "data", required=True, type=click.Path(path_type=Path), help="What the quantizer saw.")
@click.option("--production", type=click.Path(path_type=Path), help="A sample of production traffic.")
@click.option("--source", help="Where the calibration data came from, in words.")
@json_option
def calibration(uri: str | None, data: Path, production: Path | None, source: str | None, as_json: bool) -> int:
    """With URI, record calibration data for a version; without, compare two files before quantizing."""
    if uri is not None:
        from mlflow_quantgov import api

        measure(
            "calibration",
            lambda _: api.assess_calibration(uri, data, production, source=source),
            as_json=as_json,
        )
        return 0
    if production is None:
        raise click.UsageError("--production FILE is needed to compare two files")
    from mlflow_quantgov.evidence.measure.calibration import compare_files

    found = compare_files(data, production)
    if as_json:
        print_json(found)
    else:
        stdout.print(coloured(found["outcome"], bold=True), "", found["reason"])
        for test in found["tests"]:
            interval = f"{number(test['lower'])} to {number(test['upper'])}, threshold {number(test['threshold'])}"
            stdout.print(f"  {test['name']}  {number(test['estimate'])} ({interval}) ", coloured(test["outcome"]))
    return EXIT_CODES[found["outcome"]]

"""`quantgov compare`: not worse, for anybody's per-item scores."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.output import json_option, pairs_table, print_json

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


@click.command()
@click.option("--parent", required=True, type=click.Path(path_type=Path), help="JSONL: id, score, optional group.")
@click.option("--quantized", required=True, type=click.Path(path_type=Path), help="JSONL with the same ids.")
@click.option("--margin", default=0.02, show_default=True, help="Largest tolerated loss, in units of the score.")
@click.option("--confidence", default=0.95, show_default=True, help="One-sided confidence.")
@json_option
def compare(parent: Path, quantized: Path, margin: float, confidence: float, as_json: bool) -> int:
    """Is the quantized side not worse than the parent by more than the margin?"""
    from mlflow_quantgov.evidence.statistics import compare as judge

    found = judge(parent, quantized, margin=margin, confidence=confidence)
    if as_json:
        print_json(found.to_dict())
    else:
        pairs_table(f"{found.outcome}: margin {margin:g}, confidence {confidence:g}", found.to_dict())
    return EXIT_CODES[found.outcome]

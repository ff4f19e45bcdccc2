"""`quantgov fidelity`: how far the distributions moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import json_option, pairs_table, print_fix, stdout
from mlflow_quantgov.errors import one_line

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("uri")
@click.option("--text", type=_PATH, help="Production-like text or JSONL.")
@click.option("--runtime", help="Runtime for both sides; default: the target's.")
@click.option("--parent-logits", type=_PATH, help="File of llama-perplexity --save-all-logits, instead of the parent.")
@click.option("--quantized-logits", type=_PATH, help="The same for the version, instead of running it here.")
@click.option(
    "--served",
    nargs=2,
    type=_PATH,
    metavar="PARENT.yaml QUANTIZED.yaml",
    help="Ask the endpoints that these files describe, instead of running the models here.",
)
@key_option
@json_option
def fidelity(
    uri: str,
    text: Path | None,
    runtime: str | None,
    parent_logits: Path | None,
    quantized_logits: Path | None,
    served: tuple[Path, Path] | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Measure KL divergence, same-top-token rate and perplexity against the parent.

    Give --text, or --parent-logits, whose file holds its own tokens. A run that was killed goes on where it stopped.
    """
    from mlflow_quantgov import api

    statement = measure(
        "fidelity",
        lambda progress: api.measure_fidelity(
            uri,
            text,
            runtime=runtime,
            parent_logits=parent_logits,
            quantized_logits=quantized_logits,
            served=served,
            progress=progress,
            key=key,
        ),
        as_json=as_json,
        show=lambda numbers: _show(numbers, text),
    )
    if not as_json and statement.content().stated().get("outcome") == "fail":
        print_fix(f"quantgov kernels {uri}")


def _show(numbers: dict[str, Any], text: Path | None) -> None:
    """The summary with its units, then the documents that moved furthest."""
    change = 100 * (numbers["perplexity_ratio"] - 1)
    least = "at least " if numbers["kl_is_lower_bound"] else ""
    pairs_table(
        "\nAgainst the parent (reported, never sufficient)",
        {
            "perplexity": f"{numbers['parent_perplexity']:.3f} -> {numbers['quantized_perplexity']:.3f} ({change:+.2f} %)",
            "KL divergence, mean": f"{least}{numbers['kl_mean']:.5f} nats per token",
            "KL divergence, 99 % of tokens": f"up to {numbers['kl_p99']:.4f} nats",
            "KL divergence, largest": f"{least}{numbers['kl_max']:.3f} nats",
            "same most likely token": f"{numbers['same_top_rate']:.2%} of {numbers['tokens']:,} tokens",
            "bitwise equal": f"{numbers['identical_tokens']:,} tokens",
        },
    )
    words = _beginnings(text) if text else {}
    stdout.print(f"\nFurthest from the parent, of {numbers['documents']:,} documents", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("tokens", "KL, nats/token", "perplexity", "same top"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    table.add_column("document", no_wrap=True)
    for one in numbers["worst_documents"][:5]:
        table.add_row(
            f"{one['tokens']:,}",
            f"{least}{one['kl_mean']:.4f}",
            f"{100 * (one['perplexity_ratio'] - 1):+.1f} %",
            f"{one['same_top_rate']:.1%}",
            f"{one['id'][7:15]} {words.get(one['id'], '')}",
        )
    stdout.print(table)


def _beginnings(text: Path) -> dict[str, str]:
    """First words of each document by its digest; they stand in no statement, and the file is at hand here.

    Characters that steer a terminal are left out: the texts are other people's.
    """
    from mlflow_quantgov.evidence.measure.documents import read_documents
    from mlflow_quantgov.evidence.statement import sha256_digest

    return {sha256_digest(one.encode()): one_line(one)[:60] for one in read_documents(text)}

"""`quantgov fidelity`: how far the distributions moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlflow_quantgov.cli.measuring import measure
from mlflow_quantgov.cli.output import json_option, pairs_table, stdout

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
@json_option
def fidelity(
    uri: str,
    text: Path | None,
    runtime: str | None,
    parent_logits: Path | None,
    quantized_logits: Path | None,
    served: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Measure KL divergence, same-top-token rate and perplexity against the parent.

    Give --text, or --parent-logits, whose file holds its own tokens. A run that was killed goes on where it stopped.
    """
    from mlflow_quantgov import api

    measure(
        "fidelity",
        lambda progress: api.measure_fidelity(
            uri,
            text,
            runtime=runtime,
            parent_logits=parent_logits,
            quantized_logits=quantized_logits,
            served=served,
            progress=progress,
        ),
        as_json=as_json,
        show=lambda numbers: _show(numbers, text),
    )


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
    pairs_table(
        f"\nFurthest from the parent, of {numbers['documents']:,} documents",
        {
            one["id"][
                7:19
            ]: f"{least}{one['kl_mean']:.4f} nats per token, perplexity x {one['perplexity_ratio']:.3f}, same top "
            f"{one['same_top_rate']:.1%}, {one['tokens']:,} tokens{words.get(one['id'], '')}"
            for one in numbers["worst_documents"][:5]
        },
    )
    stdout.print()


def _beginnings(text: Path) -> dict[str, str]:
    """First words of each document by its digest; they stand in no statement, and the file is at hand here."""
    from mlflow_quantgov.evidence.measure.documents import read_documents
    from mlflow_quantgov.evidence.statement import sha256_digest

    return {sha256_digest(one.encode()): f"  {' '.join(one.split())[:40]!r}" for one in read_documents(text)}

"""`quantgov inspect`: what an artifact really is."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else on stdout.")
def inspect(path: Path, as_json: bool) -> None:
    """Read a model folder or file and say what it is, from tensors and headers alone."""
    from mlflow_quantgov.artifact.inspect import inspect as read

    found = read(path).quantization
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    from mlflow_quantgov.cli.output import pairs_table, print_note, stdout

    width = f"{found.bits:g} bit" if found.bits is not None else found.dtype
    if found.format == "adapter":
        width = "no model of its own"
    pairs_table(
        f"{path.name}: {', '.join(filter(None, (found.format, width)))}",
        {
            "method": found.method,
            "bits per weight": round(found.bits_per_weight, 3),
            "group size": found.group_size,
            "granularity": found.granularity,
            "symmetric": found.symmetric,
            "activations": f"{found.activation_bits} bit" if found.activation_bits else None,
            "KV cache": f"{found.kv_cache_bits} bit" if found.kv_cache_bits else None,
            "act-order": found.desc_act,
            "other weights": found.dtype if found.is_quantized else None,
            "parameters": f"{found.quantized_parameters:,} of {found.total_parameters:,} quantized",
            "size": f"{found.size_bytes / 1e6:,.1f} MB",
            "producer": found.producer,
            "calibration data": {True: "required", False: "not needed", None: "cannot be told: required"}[
                found.calibration_required
            ],
        },
    )
    kinds: dict[tuple[float, str | None], int] = {}
    for layer in found.layers:
        kinds[layer.bits, layer.type] = kinds.get((layer.bits, layer.type), 0) + 1
    if len(kinds) > 1:
        parts = [
            f"{count} x {bits:g} bit {kind or ''}".strip() for (bits, kind), count in sorted(kinds.items(), key=str)
        ]
        stdout.print("layers  " + ", ".join(parts))
    for warning in found.warnings:
        print_note(warning, word="warning")

"""The facts of an artifact in words: the same rows on the terminal and in the report."""

from __future__ import annotations

from collections import Counter
from math import prod

from mlflow_quantgov.artifact.quantization import Quantization

_CALIBRATION = {True: "required", False: "not needed", None: "cannot be told from the bytes, so it counts as required"}
_YES = {True: "yes", False: "no"}


def headline(found: Quantization) -> str:
    """Container and width in a few words: `gptq, 4 bit`."""
    if found.format == "adapter":
        return "adapter, no model of its own"
    return ", ".join(filter(None, (found.format, width_of(found) or found.dtype)))


def width_of(found: Quantization) -> str | None:
    """Width of the quantized weights: `4 bit`, `mixed, mostly 4 bit`, or `mixed, 1 to 8 bit` where none is in most."""
    if found.bits is None:
        return None
    weights: Counter[float] = Counter()
    for layer in found.layers:
        weights[layer.bits] += prod(layer.shape)
    if len(weights) < 2:
        return f"{found.bits:g} bit"
    if 2 * weights[found.bits] > weights.total():
        return f"mixed, mostly {found.bits:g} bit"
    return f"mixed, {min(weights):g} to {max(weights):g} bit"


def rows(found: Quantization) -> dict[str, str]:
    """Label to value, in the order in which people ask; what does not apply is left out."""
    other = " with scales and unquantized tensors" if found.is_quantized else ""
    if found.format == "adapter":
        other = " in the adapter alone, without its base"
    described: dict[str, str | None] = {
        "method": found.method,
        "bits per weight": f"{found.bits_per_weight:.4g}{other}" if found.total_parameters else None,
        "scales": _scales(found),
        "activations": f"{found.activation_bits} bit" if found.activation_bits else None,
        "KV cache": f"{found.kv_cache_bits} bit" if found.kv_cache_bits else None,
        "act-order": _YES.get(found.desc_act) if found.desc_act is not None else None,
        "layers": _layers(found),
        "other weights": found.dtype if found.is_quantized else None,
        "parameters": _parameters(found),
        "size": size_words(found.size_bytes),
        "producer": found.producer,
        "calibration data": _CALIBRATION[found.calibration_required] if found.is_quantized else None,
        "calibrated on": ", ".join(found.calibration_data) or None,
    }
    return {label: value for label, value in described.items() if value is not None}


def _scales(found: Quantization) -> str | None:
    """Which weights share a scale, and whether zero lies in the middle."""
    if found.granularity is None:
        return None
    rows: Counter[int] = Counter()
    for layer in found.layers:
        rows[layer.block_rows] += prod(layer.shape)
    high = rows.most_common(1)[0][0] if rows else 1
    shared = f"one per {found.granularity}"
    if found.group_size:
        shared = f"one per block of {high} x {found.group_size}" if high > 1 else f"one per group of {found.group_size}"
    middle = {True: ", symmetric", False: ", asymmetric", None: ""}[found.symmetric]
    return shared + middle


def _layers(found: Quantization) -> str | None:
    """How many matrices, and how many weights, have which width; most weights first."""
    matrices: Counter[tuple[float, str]] = Counter()
    weights: Counter[tuple[float, str]] = Counter()
    for layer in found.layers:
        kind = layer.bits, layer.type or ""
        matrices[kind] += 1
        weights[kind] += prod(layer.shape)
    if not matrices:
        return None
    parts = [f"{matrices[kind]} x {kind[0]:g} bit {kind[1]}".rstrip() for kind, _ in weights.most_common()]
    return ", ".join(parts)


def _parameters(found: Quantization) -> str:
    if not found.total_parameters:
        return "not counted: none is stored as a tensor"
    if not found.is_quantized:
        return f"{found.total_parameters:,}{' in the adapter alone' if found.format == 'adapter' else ''}"
    share = found.quantized_parameters / found.total_parameters if found.total_parameters else 0.0
    return f"{found.quantized_parameters:,} of {found.total_parameters:,} quantized ({share:.1%})"


def size_words(size: int) -> str:
    """Bytes in a unit in which the number is readable."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return f"{size} byte{'s' if size != 1 else ''}"

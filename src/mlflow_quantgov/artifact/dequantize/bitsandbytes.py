"""bitsandbytes: int8 rows; nf4 and fp4 blocks of the flattened matrix. See `formats/bitsandbytes.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix, unreadable
from mlflow_quantgov.artifact.dequantize.numbers import BNB_FP4, NF4, floats, lookup, uniform
from mlflow_quantgov.artifact.dequantize.words import nibbles
from mlflow_quantgov.artifact.files import parse_json
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization

_STATE_BYTES = 100_000
_FOUR_BIT = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_TABLES = {"nf4": NF4, "fp4": BNB_FP4}
_TABLE_ERROR = 1e-5
_SLACK = 2.0**-8
"""Models are quantized from bfloat16 or float16."""
_EDGE = 1.01
"""Room for how the quantizer breaks ties."""


def bitsandbytes_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every quantized matrix."""
    for layer in facts.quantization.layers:
        yield _eight_bit(files, layer) if layer.type == "int8" else _four_bit(files, layer)


def _eight_bit(files: ArtifactFiles, layer: LayerQuantization) -> Matrix:
    """`weight = code * row maximum / 127`."""
    codes, maxima = files.tensors[f"{layer.name}.weight"], files.tensors[f"{layer.name}.SCB"]
    others = tuple(name for part in ("SCB", "weight_format") if (name := f"{layer.name}.{part}") in files.tensors)

    def read(start: int, stop: int) -> Block:
        scale = floats(maxima).reshape(-1, 1)[start:stop] / np.float32(127)
        return uniform(np.asarray(codes.stored()[start:stop]), scale, np.float32(0), -127, 127)

    return Matrix(codes.name, layer.shape, "int8", (codes.name, *others), read, 8, None, _SLACK)


def _four_bit(files: ArtifactFiles, layer: LayerQuantization) -> Matrix:
    """`weight = table[code] * maximum of its block`; maxima may be 8-bit codes with a table of their own."""
    stored = files.tensors.get(f"{layer.name}.weight") or files.tensors[layer.name]
    weight, state = stored.name, f"{stored.name}.quant_state.bitsandbytes__{layer.type}"
    others = tuple(name for suffix in _FOUR_BIT if (name := weight + suffix) in files.tensors)
    columns, block = layer.shape[-1], layer.group_size or 1
    table = floats(files.tensors[f"{weight}.quant_map"]).reshape(-1)
    if not np.allclose(table, _TABLES[str(layer.type)], atol=_TABLE_ERROR):
        problem = f"its table is not {layer.type}'s, which kernels know by heart"
        return unreadable(weight, layer.shape, str(layer.type), (weight, state, *others), 4, problem)

    cells = lookup(np.arange(len(table)), table, np.ones(1, dtype=np.float32))
    assert cells.below is not None and cells.above is not None
    # Outermost levels are those of the largest weight itself.
    outwards = np.nan_to_num(np.where(table < 0, cells.below, cells.above), posinf=0)
    furthest = np.abs(table) + outwards

    def read(start: int, stop: int) -> Block:
        first, last = start * columns, stop * columns
        codes = nibbles(np.asarray(stored.raw()[first // 2 : -(-last // 2)]), low_first=False)
        codes = codes[first % 2 :][: last - first].reshape(-1, columns)
        blocks = slice(first // block, -(-last // block))
        maxima, error = _maxima(files, weight, state, blocks)
        of_weight = (np.arange(first, last) // block - blocks.start).reshape(-1, columns)
        found = lookup(codes, table, maxima[of_weight])
        if error is None:
            return found
        # Codes are computed before the maxima themselves are rounded to 8 bits.
        return replace(found, blur=furthest[codes] * error[of_weight])

    parts = (weight, state, *others)
    return Matrix(weight, layer.shape, str(layer.type), parts, read, 4, layer.group_size, _SLACK)


def _maxima(files: ArtifactFiles, weight: str, state: str, blocks: slice) -> tuple[Floats, Floats | None]:
    """Largest magnitudes of some blocks, and how far they may be off, where they were rounded to 8 bits.

    These lie between the levels of a table, around the mean of all: those of small blocks may be off by more than they are,
    and below zero.
    """
    stored, nested = files.tensors[f"{weight}.absmax"], files.tensors.get(f"{weight}.nested_absmax")
    if nested is None:
        return floats(stored).reshape(-1)[blocks], None
    described = parse_json(files.tensors[state].raw(_STATE_BYTES).tobytes())
    size, offset = int(described["nested_blocksize"]), float(described.get("nested_offset", 0))
    codes = np.asarray(stored.stored()).reshape(-1)[blocks]
    table = floats(files.tensors[f"{weight}.nested_quant_map"]).reshape(-1)
    scale = floats(nested).reshape(-1)[np.arange(blocks.start, blocks.start + len(codes)) // size]
    rounded = lookup(codes, table, scale)
    assert rounded.below is not None and rounded.above is not None
    # The outermost levels are those of the largest one itself.
    wider = np.where(np.isinf(rounded.above), rounded.below, np.maximum(rounded.below, rounded.above))
    error = np.where(np.isinf(rounded.below), rounded.above, wider) * np.float32(_EDGE)
    return rounded.values + np.float32(offset), error

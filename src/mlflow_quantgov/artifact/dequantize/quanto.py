"""optimum-quanto: 8-bit integers or floats with a scale per row; 2 and 4 bit with shifts. See `formats/quanto.py`.

Codes are computed in the model's own type: `round(weight / scale)`, and `round((weight + shift) / scale)` for 2 and 4
bit (optimum/quanto/library/quantize.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix, slack_of, unreadable
from mlflow_quantgov.artifact.dequantize.numbers import FLOAT8, floats, lookup, rounding_of, uniform
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.quanto import UNSHAPED, parts_of
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor

_TINY_GEMM = 128
"""Group size of matrices that quanto holds in the layout of one kernel, if they are bfloat16 and 4 bit."""


def quanto_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every quantized matrix."""
    for layer in facts.quantization.layers:
        packed = files.tensors.get(f"{layer.name}.weight._data._data")
        yield _plain(files, layer) if packed is None else _packed(files, layer, packed)


def _plain(files: ArtifactFiles, layer: LayerQuantization) -> Matrix:
    """`weight = code * scale`."""
    data, scales = (files.tensors[f"{layer.name}.weight.{part}"] for part in ("_data", "_scale"))
    columns = layer.shape[-1]
    flat = replace(data, shape=(data.elements // columns, columns))
    tall = flat.shape[0] // scales.elements

    def read(start: int, stop: int) -> Block:
        scale = floats(replace(scales, shape=(scales.elements, 1)), np.arange(start, stop) // tall)
        if data.dtype in FLOAT8:
            return lookup(np.asarray(flat.raw().reshape(flat.shape)[start:stop]), FLOAT8[data.dtype], scale)
        return uniform(np.asarray(flat.stored()[start:stop]), scale, np.float32(0), -128, 127)

    # quanto only rounds; `int` is what others, which do more, write as well.
    kind = str(layer.type) if data.dtype in FLOAT8 else "quanto"
    name, parts = f"{layer.name}.weight", tuple(parts_of(files, layer.name))
    return Matrix(name, layer.shape, kind, parts, read, layer.bits, layer.group_size, slack_of(scales))


def _packed(files: ArtifactFiles, layer: LayerQuantization, data: Tensor) -> Matrix:
    """`weight = code * scale - shift`; a shift of whole numbers is a zero point: `(code - shift) * scale`."""
    scales, shifts = (files.tensors[f"{layer.name}.weight.{part}"] for part in ("_scale", "_shift"))
    name, parts = f"{layer.name}.weight", tuple(parts_of(files, layer.name))
    if layer.type == UNSHAPED:
        problem = "a matrix in groups whose shape neither bias nor config tell"
        return unreadable(name, layer.shape, "quanto", parts, layer.bits, problem)
    columns, bits, width = layer.shape[-1], int(layer.bits), data.shape[1]
    precision = slack_of(scales)
    # TinyGemmWeightQBitsTensor holds the middle of the range; the shift that is stored was computed back from it.
    midpoint = layer.group_size == _TINY_GEMM and scales.dtype == "BF16"

    def read(start: int, stop: int) -> Block:
        first, last = start * columns // width, stop * columns // width
        codes = _rows(data, bits, first, last)
        scale = floats(replace(scales, shape=(scales.elements, 1)), slice(first, last))
        shift = floats(replace(shifts, shape=(shifts.elements, 1)), slice(first, last))
        offset = shift if shifts.dtype in FLOATS else shift * scale
        block = uniform(codes, scale, -offset, 0, 2**bits - 1)
        if shifts.dtype not in FLOATS:
            return _shaped(block, columns)
        # The sum is rounded, then the quotient; both are far from zero where the weight is not.
        most = codes + np.float32(0.5)
        blur = rounding_of(most * scale, precision) + scale * rounding_of(most, precision)
        if midpoint:
            blur = blur + rounding_of(offset, precision)
        return _shaped(replace(block, blur=blur), columns)

    slack = 2.0**-20 if shifts.dtype in FLOATS else precision
    return Matrix(name, layer.shape, "quanto", parts, read, layer.bits, layer.group_size, slack)


def _rows(data: Tensor, bits: int, start: int, stop: int) -> NDArray[np.uint8]:
    """Some rows of the codes; the first rows lie in the lowest bits of all bytes, the next ones above them."""
    packed = data.stored()
    row = np.arange(start, stop)
    shifts = (row // len(packed) * bits).astype(np.uint8)[:, None]
    return np.asarray((packed[row % len(packed)] >> shifts) & np.uint8(2**bits - 1))


def _shaped(block: Block, columns: int) -> Block:
    """The same in rows of the matrix rather than groups."""

    def turned(one: Floats | None) -> Floats | None:
        return None if one is None else np.asarray(np.ascontiguousarray(one).reshape(-1, columns))

    return Block(block.values.reshape(-1, columns), turned(block.below), turned(block.above), turned(block.blur))

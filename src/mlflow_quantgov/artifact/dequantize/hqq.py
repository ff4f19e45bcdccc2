"""HQQ: codes of the flattened matrix, those that lie far apart packed into one byte. See `formats/hqq.py`.

The half-quadratic solver moves the zero points, then every weight is rounded to the nearest level of the grid that it
left (`optimize_weights_proximal_legacy` in hqq/core/optimize.py). Scales and zero points are stored in the model's type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix, slack_of
from mlflow_quantgov.artifact.dequantize.numbers import floats, rounding_of, uniform
from mlflow_quantgov.artifact.formats.hqq import PARTS, number_of, text_of
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor

_TENS = 10
"""Codes of 3 bit in a 32-bit word."""
_PLACES = {
    "8bit_u8": (0,), "4bit_u8": (4, 0), "3bit_32": tuple(range(27, -1, -3)), "2bit_u8": (6, 4, 2, 0),
    "1bit_u8": tuple(range(7, -1, -1)),
}  # fmt: skip
"""Lowest bit in a word of each part of the matrix, first part to last."""


def hqq_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every packed matrix."""
    for layer in facts.quantization.layers:
        yield _matrix(files, layer)


def _matrix(files: ArtifactFiles, layer: LayerQuantization) -> Matrix:
    """`weight = (code - zero) * scale`, in groups along the flattened matrix (axis 1) or across it (axis 0)."""
    stem, count, columns = layer.name, prod(layer.shape), layer.shape[-1]
    packed, scales, zeros = (files.tensors[f"{stem}.{part}"] for part in ("W_q", "scale", "zero"))
    groups, whole = scales.elements, number_of(files, stem, "channel_wise") == 0
    across = number_of(files, stem, "axis") == 0 and not whole
    width = count // layer.shape[0] if whole else groups if across else count // groups
    places = _PLACES[text_of(files, stem, "packing") or ""]
    # With 1.58 bit three of the four codes are levels.
    top = round(2 ** (number_of(files, stem, "nbits") or layer.bits) - 1)

    def read(start: int, stop: int) -> Block:
        flat = np.arange(start * columns, stop * columns).reshape(-1, columns)
        group = flat % groups if across else flat // (count // groups)
        codes = _codes(packed, places, count // width, width, start * columns, stop * columns)
        scale = floats(_flat(scales), group)
        zero = floats(_flat(zeros), group)
        block = uniform(codes.reshape(-1, columns), scale, -zero * scale, 0, top)
        # A zero point is off by a part of itself, however small the weight.
        return replace(block, blur=np.abs(scale) * rounding_of(zero, slack_of(zeros)))

    parts = tuple(name for part in PARTS if (name := f"{stem}.{part}") in files.tensors)
    name, group_size = f"{stem}.weight", layer.group_size
    return Matrix(name, layer.shape, "hqq", parts, read, layer.bits, group_size, slack_of(scales))


def _codes(packed: Tensor, places: tuple[int, ...], rows: int, width: int, start: int, stop: int) -> NDArray[np.uint8]:
    """Some codes of a matrix [rows, width] that was cut into parts, which lie in one another's words.

    Args:
        packed: The words.
        places: Lowest bit of each part.
        rows: Of the matrix as it was packed.
        width: Its columns.
        start: First code of the flattened matrix.
        stop: One past the last.
    """
    size = -(-rows // len(places)) * width
    words = packed.raw().view("<u4" if len(places) == _TENS else "<u1")
    mask = 2 ** {1: 8, 2: 4, 4: 2, 8: 1, _TENS: 3}[len(places)] - 1
    pieces = []
    for part in range(start // size, -(-stop // size)):
        chosen = words[max(start - part * size, 0) : min(stop - part * size, size)]
        pieces.append(((chosen >> places[part]) & mask).astype(np.uint8))
    return np.concatenate(pieces)


def _flat(tensor: Tensor) -> Tensor:
    return replace(tensor, shape=(tensor.elements,))

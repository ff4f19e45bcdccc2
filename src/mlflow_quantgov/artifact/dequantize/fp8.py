"""Float8, and two 4-bit floats per byte, with scales beside them. See `formats/fp8.py` and `formats/scaled.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix, slack_of
from mlflow_quantgov.artifact.dequantize.numbers import E2M1, FLOAT8, floats, lookup, powers_of_two
from mlflow_quantgov.artifact.dequantize.words import nibbles
from mlflow_quantgov.artifact.formats.fp8 import block_of
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.scaled import Scaled, block_sides, read_scaled, scaled_matrices
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.tensors import Tensor

_IN_BFLOAT16 = 2.0**-8
"""PyTorch divides a bfloat16 matrix by a single float32 number in bfloat16 (AutoFP8, modelopt); a matrix of scales makes
the quotient float32."""


def fp8_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every matrix of narrow floats."""
    for one in scaled_matrices(files):
        yield scaled_matrix(files, one)


def scaled_matrix(files: ArtifactFiles, one: Scaled) -> Matrix:
    """`weight = code * scale` (NVFP4: times `weight_scale_2`; where the input is scaled first: times `pre_quant_scale`)."""
    layer, _ = read_scaled(files, one, block_of(files))
    scale = one.scale
    assert scale is not None, "the reader refuses matrices without a scale"
    sides = block_sides(layer.shape, scale, block_of(files)) if layer.bits == 8 else (1, layer.group_size or 1)
    assert sides is not None, "the reader refuses scales that do not fit"
    beside = {name.rpartition(".")[2]: files.tensors[name] for name in one.beside}
    second, before = beside.get("weight_scale_2"), beside.get("pre_quant_scale")
    # gptqmodel stores what weights were multiplied with; for all others the same name holds what codes are multiplied with.
    inverse = any(claim.get("weight_scale_semantics") == "inverse" for _, claim in files.claims)

    def read(start: int, stop: int) -> Block:
        factor = _per_weight(scale, layer.shape, sides, start, stop)
        if inverse:
            with np.errstate(divide="ignore"):
                factor = np.reciprocal(factor)
        if second is not None:
            factor = factor * _of_matrix(second, layer.shape, start, stop)
        if before is not None:
            factor = factor * floats(before).reshape(1, -1)
        flat = replace(one.weight, shape=(one.weight.elements // one.weight.shape[-1], one.weight.shape[-1]))
        codes = np.asarray(flat.raw().reshape(flat.shape)[start:stop])
        if layer.bits == 8:
            return lookup(codes, FLOAT8[flat.dtype], factor)
        return lookup(nibbles(codes), E2M1, factor)

    rough = scale.elements == 1 or before is not None
    slack = max(slack_of(scale), _IN_BFLOAT16 if rough else 0.0)
    parts = (one.name, scale.name, *one.beside)
    return Matrix(one.name, layer.shape, str(layer.type), parts, read, layer.bits, layer.group_size, slack)


def _per_weight(scale: Tensor, shape: tuple[int, ...], sides: tuple[int, int], start: int, stop: int) -> Floats:
    """Scales of some rows of a stack, broadcastable to [rows, columns].

    Args:
        scale: The stored ones.
        shape: Of the stack.
        sides: Rows and columns that share a scale.
        start: First row, counted through the stack.
        stop: One past the last.
    """
    rows, columns = shape[-2:]
    down, across = -(-rows // sides[0]), -(-columns // sides[1])
    row = np.arange(start, stop)
    place = row // rows * down + row % rows // sides[0] if scale.elements > 1 else np.zeros_like(row)
    chosen = _numbers(replace(scale, shape=(scale.elements // across, across)), place)
    return chosen if across == 1 else chosen[:, np.arange(columns) // sides[1]]


def _of_matrix(second: Tensor, shape: tuple[int, ...], start: int, stop: int) -> Floats:
    """The scale over all scales, one or one per matrix of a stack, for some rows."""
    stored = floats(second).reshape(-1, 1)
    return stored if len(stored) == 1 else stored[np.arange(start, stop) // shape[-2]]


def _numbers(scale: Tensor, rows: NDArray[np.intp]) -> Floats:
    """Some rows of scales; whole bytes are exponents."""
    return powers_of_two(np.asarray(scale.stored()[rows])) if scale.dtype == "U8" else floats(scale, rows)

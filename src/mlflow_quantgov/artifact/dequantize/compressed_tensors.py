"""compressed-tensors: packed integers, int8, float8, float4. See `formats/compressed_tensors.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix, slack_of, unreadable
from mlflow_quantgov.artifact.dequantize.numbers import E2M1, FLOAT8, floats, lookup, powers_of_two, uniform
from mlflow_quantgov.artifact.dequantize.words import nibbles, unpack, unpack_padded
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor

_PARTS = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
          "weight_global_scale", "input_scale", "input_zero_point", "input_global_scale", "output_scale",
          "output_zero_point", "scale_packed")  # fmt: skip


def compressed_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every compressed matrix."""
    for layer in facts.quantization.layers:
        yield compressed_matrix(files, layer)


def compressed_matrix(files: ArtifactFiles, layer: LayerQuantization) -> Matrix:
    """One matrix."""
    named = {part: files.tensors.get(f"{layer.name}.{part}") for part in _PARTS}
    parts = {part: tensor for part, tensor in named.items() if tensor is not None}
    name, used = f"{layer.name}.weight", tuple(tensor.name for tensor in parts.values())
    kind = str(layer.type)
    reader = _READERS.get(kind)
    if reader is None or len(layer.shape) != 2:
        return unreadable(name, layer.shape, kind, used, layer.bits, f"the layout of {kind} codes")
    if files.quantization_config.get("transform_config"):
        return unreadable(
            name, layer.shape, kind, used, layer.bits, "what a loader turns its inputs with (transform_config)"
        )
    zeros = parts.get("weight_zero_point")
    if kind != "int" and zeros is not None and zeros.raw().any():
        return unreadable(name, layer.shape, kind, used, layer.bits, f"zero points of {kind} codes")
    slack = slack_of(parts["weight_scale"])
    return Matrix(name, layer.shape, kind, used, reader(layer, parts).read, layer.bits, layer.group_size, slack)


class _Integers:
    """`weight = (code - zero) * scale` with signed codes, one per byte or packed with half the range added."""

    def __init__(self, layer: LayerQuantization, parts: dict[str, Tensor]) -> None:
        self.layer, self.parts = layer, parts
        self.bits, self.half = int(layer.bits), 2 ** (int(layer.bits) - 1)

    def read(self, start: int, stop: int) -> Block:
        scale = _per_weight(self.parts, self.parts["weight_scale"], start, stop, self.layer)
        codes, zeros = self._codes(start, stop), self._zeros(start, stop)
        if zeros is None:
            return uniform(codes, scale, np.float32(0), -self.half, self.half - 1)
        block = uniform(codes, scale, -zeros * scale, -self.half, self.half - 1)
        # The zero point is added in the precision of the model, and the sum is rounded before it becomes a code.
        return replace(block, blur=np.abs(codes * scale) * np.float32(slack_of(self.parts["weight_scale"])))

    def _codes(self, start: int, stop: int) -> NDArray[Any]:
        packed, columns = self.parts.get("weight_packed"), self.layer.shape[-1]
        if packed is None:
            plain: NDArray[Any] = np.asarray(self.parts["weight"].stored()[start:stop])
            return plain
        words = np.asarray(packed.stored()[start:stop])
        dense = -(-columns * self.bits // 32) == words.shape[1]
        codes = unpack(words, self.bits, 0, columns) if dense else unpack_padded(words, self.bits, columns)
        signed: NDArray[Any] = codes.astype(np.int16) - self.half
        return signed

    def _zeros(self, start: int, stop: int) -> Floats | None:
        """Zero points per weight; packed ones run along the output."""
        stored = self.parts.get("weight_zero_point")
        if stored is None:
            return None
        if stored.dtype != "I32" or "weight_packed" not in self.parts:
            return _per_weight(self.parts, stored, start, stop, self.layer)
        columns = np.ascontiguousarray(np.asarray(stored.stored()).T)
        rows = self.layer.shape[0]
        dense = -(-rows * self.bits // 32) == columns.shape[1]
        zeros = unpack(columns, self.bits, start, stop) if dense else \
            unpack_padded(columns, self.bits, rows)[:, start:stop]  # fmt: skip
        chosen: Floats = zeros.T.astype(np.float32) - np.float32(self.half)
        return np.asarray(chosen[:, _groups(self.parts, chosen.shape[1], self.layer)])


class _Float8:
    """`weight = code * scale`; scales per tensor, row, group, or block of rows and columns."""

    def __init__(self, layer: LayerQuantization, parts: dict[str, Tensor]) -> None:
        self.layer, self.parts = layer, parts

    def read(self, start: int, stop: int) -> Block:
        weight, scales = self.parts["weight"], self.parts["weight_scale"]
        scale = _per_weight(self.parts, scales, start, stop, self.layer)
        codes = np.asarray(weight.raw().reshape(weight.shape)[start:stop])
        return lookup(codes, FLOAT8[weight.dtype], scale)


class _Float4:
    """`weight = code * scale`: NVFP4 with float8 scales over a global one, MXFP4 with powers of two."""

    def __init__(self, layer: LayerQuantization, parts: dict[str, Tensor]) -> None:
        self.layer, self.parts = layer, parts

    def read(self, start: int, stop: int) -> Block:
        packed, scales = self.parts["weight_packed"], self.parts["weight_scale"]
        if scales.dtype in {"U8", "F8_E8M0"}:
            scale = powers_of_two(np.asarray(scales.stored()[start:stop]))
        else:
            scale = floats(scales, slice(start, stop))
        whole = self.parts.get("weight_global_scale")
        if whole is not None:
            scale = scale / floats(whole).reshape(-1)[0]
        width = self.layer.shape[-1] // scale.shape[-1]
        return lookup(nibbles(np.asarray(packed.stored()[start:stop])), E2M1, np.repeat(scale, width, axis=-1))


def _per_weight(parts: dict[str, Tensor], stored: Tensor, start: int, stop: int, layer: LayerQuantization) -> Floats:
    """Scales or zero points of some rows, broadcastable to [rows, columns]; MXFP8 stores powers of two as bytes."""
    exponents = stored.dtype == "U8" and layer.type == "float8"

    def some(index: Any = ...) -> Floats:
        found = floats(stored, index)
        return powers_of_two(found) if exponents else found

    if stored.elements == 1:
        return some().reshape(1, 1)
    if len(stored.shape) == 1:
        return some(slice(start, stop)).reshape(-1, 1)
    rows, parts_down = layer.shape[0], stored.shape[0]
    if parts_down in {rows, 1}:
        chosen = some(slice(start, stop) if parts_down > 1 else slice(0, 1))
    else:
        # Blocks are as high as they are wide where that gives as many; the last one may be lower.
        square = layer.group_size or rows
        tall = square if -(-rows // square) == parts_down else -(-rows // parts_down)
        chosen = some(np.arange(start, stop) // tall)
    return chosen if chosen.shape[1] == 1 else chosen[:, _groups(parts, chosen.shape[1], layer)]


def _groups(parts: dict[str, Tensor], groups: int, layer: LayerQuantization) -> NDArray[np.intp]:
    """Group of each column; -1 everywhere in a stored index stands for no reordering."""
    columns = layer.shape[-1]
    index = parts.get("weight_g_idx")
    if index is not None:
        stored = np.asarray(index.values()).astype(np.intp)
        if stored.shape == (columns,) and stored.min() >= 0:
            return stored
    return np.arange(columns) // (layer.group_size or -(-columns // groups))


_READERS: dict[str, type[_Integers | _Float8 | _Float4]] = {
    "int": _Integers, "float8": _Float8, "nvfp4": _Float4, "mxfp4": _Float4
}  # fmt: skip

"""ONNX: matrices behind DequantizeLinear, of integer operators, and in the blocks of onnxruntime's own operators.

Sources: ONNX's DequantizeLinear and MatMulInteger; docs/ContribOperators.md of onnxruntime (MatMulNBits,
GatherBlockQuantized, MatMulBnb4). See `formats/onnx_layers.py` for what makes a tensor a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlflow_quantgov.artifact.dequantize.graph import (
    Collected,
    Stored,
    hidden,
    is_left_over,
    plain,
    quantized,
    unplaced,
    vectors,
)
from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix
from mlflow_quantgov.artifact.dequantize.numbers import BNB_FP4, E2M1, FLOAT8, NF4, floats, lookup
from mlflow_quantgov.artifact.dequantize.planes import LIMITS, Grid, Plane, Spread
from mlflow_quantgov.artifact.dequantize.words import nibbles
from mlflow_quantgov.artifact.formats.graph import WeightUse
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.onnx_layers import OPERATORS, LayerReader
from mlflow_quantgov.artifact.formats.onnx_uses import LAYOUT, Terminal, Uses
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor

_TABLES = {**FLOAT8, "F4": E2M1}
_BLOCKED = {"MatMulNBits", "GatherBlockQuantized"}
_NBITS = frozenset({2, 4, 8})
_BNB = {"nf4": NF4, "fp4": BNB_FP4}
_STEPS = 8


def onnx_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every weight of the graph: quantized, of floats, and vectors."""
    assert files.onnx is not None
    uses = Uses(files.onnx.graph)
    reader = LayerReader(files, uses)
    layers = _Layers(uses, reader)
    collected = Collected()
    for name, tensor in uses.graph.tensors.items():
        for terminal in uses.terminals(name) if tensor.elements else ():
            found = reader.read(tensor, terminal)
            if found is not None:
                collected.add(layers.matrix(tensor, terminal, found), tensor)
    for name, tensor in uses.graph.tensors.items():
        if is_left_over(tensor, collected.used):
            takers = [(one.node, one.place) for one in uses.terminals(name)]
            # What no operation takes by its own name comes out of a branch, or is passed on in a way not followed here.
            for vector in vectors(tensor, takers) if takers else [unplaced(tensor)]:
                collected.add(vector, tensor)
        elif (one := hidden(tensor, uses, collected.used)) is not None:
            collected.add(one, tensor)
    yield from collected.found.values()


@dataclass(frozen=True)
class _Layers:
    """Turns uses of stored tensors into matrices."""

    uses: Uses
    reader: LayerReader

    def matrix(self, tensor: Tensor, terminal: Terminal, use: WeightUse) -> Matrix:
        """One matrix."""
        op = terminal.node.op
        turned = terminal.turned and op not in _BLOCKED | {"MatMulBnb4", "QMoE"}
        one = Stored(tensor, terminal.node.name, use.shape, turned, (tensor.name, *use.parts)).as_parent()
        if use.bits is None or tensor.dtype in FLOATS:
            # Floats that are rounded when the model is loaded are still the parent's own.
            return plain(one)
        if op == "MatMulBnb4":
            return self._bnb(one, terminal, use)
        kind = op if op == "MatMulNBits" else tensor.dtype
        return quantized(one, self._grid(one, terminal, use), kind, use.bits, use.group_size)

    def _grid(self, one: Stored, terminal: Terminal, use: WeightUse) -> Grid | str:
        """The grid, or why there is none."""
        op, codes = terminal.node.op, one.tensor
        if op in _BLOCKED:
            return self._blocks(one, terminal, use)
        if len(codes.shape) != 2:
            return f"codes of {len(codes.shape)} dimensions under {op}"
        if codes.dtype not in LIMITS | _TABLES:
            return f"codes of the type {codes.dtype}"
        if terminal.dequantize is not None and op not in OPERATORS:
            return self._dequantized(one, terminal)
        return self._integers(one, terminal)

    def _blocks(self, one: Stored, terminal: Terminal, use: WeightUse) -> Grid | str:
        """MatMulNBits and GatherBlockQuantized: rows of blocks along the input, each with a scale."""
        node, tensor = terminal.node, one.tensor
        gathers = node.op == "GatherBlockQuantized"
        packed = tensor.dtype in {"U8", "I8"}
        bits = node.number("bits", 4) if packed or not gathers else {"U4": 4, "I4": 4}.get(tensor.dtype, 0)
        block = node.number("block_size", 128)
        if bits not in _NBITS or (not gathers and tensor.dtype != "U8"):
            return f"the order of {use.bits:g}-bit codes of the type {tensor.dtype}"
        if self.uses.stored(node.input(4)) is not None:
            return "groups whose columns are not in order"
        if gathers and (node.number("gather_axis", 0), node.number("quantize_axis", 1) % 2) != (0, 1):
            return "blocks along another axis than the last"
        rows, columns = use.shape
        count = -(-columns // block)
        scale, zero = self.uses.stored(node.input(2)), self.uses.stored(node.input(3))
        assert scale is not None, "the reader of facts refuses blocks without scales"
        signed = tensor.dtype in {"I8", "I4"}
        low = -(2 ** (bits - 1)) if signed else 0
        middle: Spread | float = 0.0 if signed or (gathers and not packed) else 2.0 ** (bits - 1)
        if zero is not None:
            width = bits if zero.dtype == "U8" else None
            middle = Spread(Plane(zero, rows, count, width, padded=width is not None), rows=1, columns=block)
        width = bits if packed else None
        # The last block of a row is filled up.
        codes = Plane(tensor, rows, columns, width, padded=width is not None, stride=None if gathers else count * block)
        return Grid(codes, Spread(Plane(scale, rows, count), 1, block), low, low + 2**bits - 1, middle, one.turned)

    def _dequantized(self, one: Stored, terminal: Terminal) -> Grid | str:
        """Codes behind a DequantizeLinear, with scales per tensor, per row, per column or per block."""
        node = terminal.dequantize
        assert node is not None
        scale, zero = self.uses.stored(node.input(1)), self.uses.stored(node.input(2))
        assert scale is not None, "the reader of facts refuses codes without scales"
        block, axis = node.number("block_size", 0), node.number("axis", 1)
        if scale.elements > 1:
            found = self._axis(one.tensor, node.input(0), axis)
            if found is None:
                return "scales along an axis that cannot be followed to the stored codes"
            axis = found
        return _grid(one, scale, zero, axis, block)

    def _axis(self, tensor: Tensor, value: str, axis: int) -> int | None:
        """Side of the stored codes that an axis of the dequantized ones is."""
        turned = False
        for _ in range(_STEPS):
            if value == tensor.name:
                return (axis % 2) ^ turned if -2 <= axis < 2 else None
            maker = self.uses.makers.get(value)
            if maker is None:
                return None
            if maker.op in {"Gather", "GatherND"}:
                # Picked rows: their last side is the last of the table.
                return 1 ^ turned if axis == -1 else None
            if maker.op not in LAYOUT or maker.op == "Reshape":
                return None
            turned ^= maker.op == "Transpose"
            value = maker.input(0)
        return None

    def _integers(self, one: Stored, terminal: Terminal) -> Grid | str:
        """Codes that an operation multiplies as integers; scales are those of its outputs."""
        node = terminal.node
        places = next((p for p in OPERATORS.get(node.op, ()) if p[0] == terminal.place), None)
        if places is None or node.op in {"QAttention", "DynamicQuantizeLSTM", "QEmbedLayerNormalization"}:
            return f"weights of {node.op}"
        _, scale_at, zero_at = places
        zero = self.uses.stored(node.input(zero_at))
        scale = self.uses.stored(node.input(scale_at)) if scale_at >= 0 else self.reader.scale_behind(terminal)
        if scale is None:
            return f"no scale stands behind {node.op}"
        return _grid(one, scale, zero, 1 if terminal.turned else 0, 0)

    def _bnb(self, one: Stored, terminal: Terminal, use: WeightUse) -> Matrix:
        """MatMulBnb4: `table[code] * largest magnitude of its block`, blocks of the flattened matrix."""
        scale, columns, block = self.uses.stored(terminal.node.input(2)), use.shape[-1], use.group_size or 1
        assert scale is not None, "the reader of facts refuses blocks without scales"
        table = _BNB.get(str(use.type))
        if table is None or one.shape != use.shape:
            return quantized(one, "the table of its codes", "MatMulBnb4", 4, block)

        def read(start: int, stop: int) -> Block:
            first, last = start * columns, stop * columns
            codes = nibbles(np.asarray(one.tensor.raw()[first // 2 : -(-last // 2)]), low_first=False)
            codes = codes[first % 2 :][: last - first].reshape(-1, columns)
            chosen = floats(scale).reshape(-1)[first // block : -(-last // block)]
            return lookup(codes, table, chosen[(np.arange(first, last) // block - first // block).reshape(-1, columns)])

        matrix = quantized(one, "", str(use.type), 4, block)
        return Matrix(matrix.name, use.shape, matrix.kind, one.parts, read, 4, block, 2.0**-8, claim=matrix.claim)


def _grid(one: Stored, scale: Tensor, zero: Tensor | None, axis: int, block: int) -> Grid | str:
    """Codes of one byte or less with scales along a side of the stored table."""
    rows, columns = one.tensor.shape
    sides = (rows, columns)
    for part in (scale, zero):
        wanted = sides[axis] if block == 0 else rows * columns // sides[axis] * -(-sides[axis] // block)
        if part is not None and part.elements not in {1, wanted}:
            return f"scales of the shape {part.shape}"
    table = _TABLES.get(one.tensor.dtype)
    low, high = LIMITS.get(one.tensor.dtype, (0, 0))
    middle = _spread(zero, sides, axis, block) if zero is not None else 0.0
    return Grid(
        Plane(one.tensor, rows, columns), _spread(scale, sides, axis, block), low, high, middle, one.turned, table
    )


def _spread(part: Tensor, sides: tuple[int, int], axis: int, block: int) -> Spread:
    if part.elements == 1:
        return Spread(Plane(part, 1, 1), 1, 1)
    if block == 0:
        return Spread(Plane(part, sides[0], 1) if axis == 0 else Plane(part, 1, sides[1]), 1, 1)
    count = -(-sides[axis] // block)
    if axis == 0:
        return Spread(Plane(part, count, sides[1]), rows=block, columns=1)
    return Spread(Plane(part, sides[0], count), rows=1, columns=block)

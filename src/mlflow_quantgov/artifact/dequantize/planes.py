"""Tables of numbers that graphs store: codes of any width, and scales that several weights share.

A graph holds a matrix as [out, in] or as [in, out], with scales per tensor, row, column or block. All are read here as
cut-outs of tables, so that a few rows of the matrix cost a few rows, or columns, of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats
from mlflow_quantgov.artifact.dequantize.numbers import FLOAT8, coarse_half, floats, left_open, lookup, uniform
from mlflow_quantgov.artifact.dequantize.words import unpack
from mlflow_quantgov.artifact.tensors import Tensor

_PACKED = {"U4": 4, "I4": 4, "U2": 2, "I2": 2, "NF4": 4, "F4": 4}
LIMITS = {"U8": (0, 255), "I8": (-128, 127), "U4": (0, 15), "I4": (-8, 7), "U2": (0, 3), "I2": (-2, 1),
          "U16": (0, 65535), "I16": (-32768, 32767)}  # fmt: skip
"""Lowest and highest code of a storage type."""


@dataclass(frozen=True)
class Plane:
    """A stored tensor as a table [rows, columns], whatever its own shape."""

    tensor: Tensor
    rows: int
    columns: int
    bits: int | None = None
    """Width of codes that are packed into bytes, lowest first; None for what the storage type says."""
    padded: bool = False
    """Whether each row begins a byte of its own."""
    stride: int | None = None
    """Numbers from one row to the next, where what fills the rows up is no part of the table."""

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """A cut-out: floats as float32, codes as whole numbers."""
        bits = self.bits or _PACKED.get(self.tensor.dtype, 8)
        if bits < 8:
            return self._signed(self._unpacked(bits, rows, columns), bits)
        table = replace(self.tensor, shape=(self.rows, self.stride or self.columns))
        if self.tensor.dtype in LIMITS:
            return np.asarray(table.stored()[rows, columns])
        if self.tensor.dtype in FLOAT8:
            return np.asarray(table.raw().reshape(table.shape)[rows, columns])
        return floats(table, (rows, columns))

    def _unpacked(self, bits: int, rows: slice, columns: slice) -> NDArray[Any]:
        stream, per_byte = self.tensor.raw(), 8 // bits
        first, last = columns.start // per_byte, -(-columns.stop // per_byte)
        stride = self.stride or self.columns
        if self.padded or stride % per_byte == 0:
            chosen = stream.reshape(self.rows, -1)[rows, first:last]
            skip = columns.start - first * per_byte
            return unpack(chosen, bits, skip, skip + columns.stop - columns.start)
        # Rows that end inside a byte: every code by its number.
        place = np.arange(rows.start, rows.stop)[:, None] * stride + np.arange(columns.start, columns.stop)
        shift = (place % per_byte * bits).astype(np.uint8)
        found: NDArray[np.uint8] = (stream[place // per_byte] >> shift) & np.uint8(2**bits - 1)
        return found

    def _signed(self, codes: NDArray[Any], bits: int) -> NDArray[Any]:
        if not self.tensor.dtype.startswith("I"):
            return codes
        half = 1 << (bits - 1)
        signed: NDArray[Any] = (codes.astype(np.int16) ^ half) - half
        return signed


@dataclass(frozen=True)
class Spread:
    """Numbers that weights share: a scale per block, row, column or tensor."""

    plane: Plane
    rows: int
    """Rows of the weights that share one number."""
    columns: int
    """Columns of the weights that share one number."""

    def read(self, rows: slice, columns: slice) -> Floats:
        """The numbers of a cut-out of the weights, broadcastable to it."""
        down, at_row = _places(rows, self.rows, self.plane.rows)
        along, at_column = _places(columns, self.columns, self.plane.columns)
        shared, table = self.plane.read(down, along), FLOAT8.get(self.plane.tensor.dtype)
        numbers = shared.astype(np.float32) if table is None else table[shared]
        return np.asarray(numbers[at_row][:, at_column])


def _places(wanted: slice, share: int, count: int) -> tuple[slice, NDArray[np.intp] | slice]:
    """Cut-out of the shared numbers, and the place in it of each weight."""
    if count == 1:
        return slice(0, 1), slice(None)
    places = np.arange(wanted.start, wanted.stop) // share
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1), places - first


@dataclass(frozen=True)
class Grid:
    """A quantized matrix: `weight = (code - zero) * scale`, or `table[code] * scale`."""

    codes: Plane
    scale: Spread
    low: int
    """Lowest code there is."""
    high: int
    """Highest code there is."""
    zero: Spread | float = 0.0
    turned: bool = False
    """Whether it is stored the other way round than the parent's matrix."""
    table: Floats | None = None
    """Value of each code, where they are no whole numbers."""
    inputs: Floats | None = None
    """What the graph multiplies each input with before the matrix does, [columns]."""

    def read(self, start: int, stop: int) -> Block:
        """Rows of the matrix as the parent has it."""
        rows = slice(0, self.codes.rows) if self.turned else slice(start, stop)
        columns = slice(start, stop) if self.turned else slice(0, self.codes.columns)
        codes, scale = self.codes.read(rows, columns), self.scale.read(rows, columns)
        zero = self.zero.read(rows, columns) if isinstance(self.zero, Spread) else np.full((1, 1), self.zero, "f4")
        if self.turned:
            codes, scale, zero = codes.T, scale.T, zero.T
        if self.table is not None:
            found, levels = lookup(codes, self.table, scale), self.table[codes]
        else:
            found, levels = uniform(codes, scale, -zero * scale, self.low, self.high), codes - zero
        if self.scale.plane.tensor.dtype == "F16":
            found = left_open(found, levels, coarse_half(scale))
        return found if self.inputs is None else _multiplied(found, self.inputs)


def _multiplied(block: Block, inputs: Floats) -> Block:
    """Weights that do to an input what these do to it after it was multiplied with positive factors."""
    assert block.below is not None and block.above is not None, "a quantized matrix has cells"
    blur = None if block.blur is None else block.blur * inputs
    return Block(block.values * inputs, block.below * inputs, block.above * inputs, blur)


def plain_reader(plane: Plane, turned: bool) -> Callable[[int, int], Block]:
    """Reads rows of a matrix of floats, stored as the parent's or the other way round."""

    def read(start: int, stop: int) -> Block:
        if turned:
            return Block(np.ascontiguousarray(plane.read(slice(0, plane.rows), slice(start, stop)).T))
        return Block(plane.read(slice(start, stop), slice(0, plane.columns)))

    return read

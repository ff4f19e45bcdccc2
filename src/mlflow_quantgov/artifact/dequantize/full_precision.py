"""Weights that were never quantized, or stand unquantized beside quantized ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix
from mlflow_quantgov.artifact.dequantize.numbers import floats
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor


def plain_matrices(tensors: Iterable[Tensor]) -> Iterator[Matrix]:
    """Every float tensor as it is, and every other one with the reason why it cannot be a weight."""
    for tensor in tensors:
        if tensor.elements:
            yield plain_matrix(tensor) if tensor.dtype in FLOATS else _other(tensor)


def _other(tensor: Tensor) -> Matrix:
    """Numbers of another type: tables and flags can be read, and nothing else should be there."""

    def read(start: int, stop: int) -> Block:
        return Block(np.asarray(_flat(tensor).stored()[start:stop]).astype(np.float32))

    problem = f"it holds numbers of the type {tensor.dtype}, and no quantized matrix takes them"
    return Matrix(tensor.name, tensor.shape or (1,), tensor.dtype, (tensor.name,), read, problem=problem, is_other=True)


def plain_matrix(tensor: Tensor, name: str | None = None) -> Matrix:
    """One float tensor, perhaps under another name."""
    shape = tensor.shape or (1,)

    def read(start: int, stop: int) -> Block:
        return Block(floats(_flat(tensor), slice(start, stop)))

    def columns_of(place: int, columns: slice) -> Floats:
        stack = replace(tensor, shape=(tensor.elements // (shape[-2] * shape[-1]), *shape[-2:]))
        return np.ascontiguousarray(floats(stack, np.s_[place, :, columns]).T)

    found = Matrix(name or tensor.name, shape, tensor.dtype, (tensor.name,), read)
    return replace(found, columns_of=columns_of) if len(shape) > 1 else found


def _flat(tensor: Tensor) -> Tensor:
    """The same bytes as [rows, columns]."""
    columns = tensor.shape[-1] if tensor.shape else 1
    return Tensor(
        tensor.name, tensor.dtype, (tensor.elements // columns, columns), tensor.file, tensor.offset, tensor.size
    )

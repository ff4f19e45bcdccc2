"""Weights that were never quantized, or stand unquantized beside quantized ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix, unreadable
from mlflow_quantgov.artifact.dequantize.numbers import floats
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor


def plain_matrices(tensors: Iterable[Tensor]) -> Iterator[Matrix]:
    """Every tensor that no quantized matrix consists of: floats as they are, others as what cannot be compared.

    A loader casts whatever it finds under the name of a parameter, so none may be passed over.
    """
    for tensor in tensors:
        if tensor.dtype in FLOATS and tensor.elements:
            yield plain_matrix(tensor)
        elif tensor.elements:
            shape = tensor.shape or (1,)
            problem = f"it is stored as {tensor.dtype}, and belongs to no quantized matrix"
            yield unreadable(tensor.name, shape, tensor.dtype, (tensor.name,), None, problem)


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

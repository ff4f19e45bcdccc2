"""Notices weights that were quantized and written back as floats.

Rounding to k <= 8 bits makes equal values frequent among neighbours that share a scale; weights that were trained and
stored as floats repeat only as often as the storage type rounds them together. Both frequencies are measured on a
sample: how many pairs of neighbours are equal, and how many would be if the weights were spread smoothly over the
numbers that the storage type has. For normally distributed weights a pair is equal by chance with probability 9e-4 in
bfloat16, 1e-4 in float16 and practically never in float32; after 8-bit rounding of groups of 32, with 5e-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.tensors import Tensor

_NEIGHBOURS = 16
"""All common group sizes are multiples of 16."""
_BLOCKS = 8
_COLUMNS = 256
_MATRICES = 24
_LEAST_RATE = 2.2e-3
_LEAST_RATIO = 2.0
_LEAST_SHARE = 1 / 3
_MOST_LEVELS = 256
_LEAST_USES = 8
_POINT_MASS = 0.02
_ONE_SIDED = 0.02
_BFLOAT16_MANTISSA = 7
_MANTISSA_BITS = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52}
_PATTERNS = {"F16": "<u2", "BF16": "<u2", "F32": "<u4", "F64": "<u8"}


def lies_on_grid(tensors: Mapping[str, Tensor]) -> bool:
    """Whether at least a third of a sample of the weight matrices lies on a grid of 8 bits or fewer."""
    names = sorted(name for name, one in tensors.items() if _is_matrix(one))
    sampled = names[:: -(-len(names) // _MATRICES)] if names else []
    return bool(sampled) and sum(on_grid(tensors[name]) for name in sampled) >= _LEAST_SHARE * len(sampled)


def on_grid(tensor: Tensor) -> bool:
    """Whether one matrix lies on a grid, with scales shared along its rows or along its columns."""
    patterns = tensor.raw().view(_PATTERNS[tensor.dtype]).reshape(-1, tensor.shape[-1])
    along_rows, along_columns = [], []
    width = min(patterns.shape[1], _COLUMNS) // _NEIGHBOURS * _NEIGHBOURS
    blocks = min(_BLOCKS, patterns.shape[0] // _NEIGHBOURS)
    for step in range(blocks):
        row = (patterns.shape[0] // _NEIGHBOURS) * step // blocks * _NEIGHBOURS
        column = (patterns.shape[1] - width) * (blocks - 1 - step) // blocks // _NEIGHBOURS * _NEIGHBOURS
        block = np.asarray(patterns[row : row + _NEIGHBOURS, column : column + width])
        along_rows.append(block.reshape(-1, _NEIGHBOURS))
        along_columns.append(block.T)
    mantissa = _MANTISSA_BITS[tensor.dtype]
    return any(_repeats(np.concatenate(groups), mantissa) for groups in (along_rows, along_columns))


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.dtype in _PATTERNS and len(tensor.shape) >= 2 and tensor.shape[-1] >= _NEIGHBOURS \
        and tensor.elements // tensor.shape[-1] >= _NEIGHBOURS  # fmt: skip


def _repeats(groups: NDArray[Any], mantissa: int) -> bool:
    """Whether values repeat within groups far more often than the storage type explains.

    Args:
        groups: Bit patterns, one group of neighbours per row.
        mantissa: Explicit mantissa bits of the storage type.
    """
    telling = _is_normal(groups, mantissa)
    values = groups[telling]
    if values.size < 2 * _NEIGHBOURS or not _is_two_sided(values):
        return False
    patterns, counts = np.unique(values, return_counts=True)
    if patterns.size <= _MOST_LEVELS and values.size >= _LEAST_USES * patterns.size:
        return True
    # Two clipping limits at most may be values of their own weight.
    for index in np.argsort(counts)[-2:]:
        if counts[index] > _POINT_MASS * values.size:
            telling &= groups != patterns[index]
    excluded = ~telling
    # A constant group says nothing: it may be an initial value, or padding.
    varied = (groups != groups[:, :1]).any(axis=1)
    groups, excluded = groups[varied], excluded[varied]
    values = groups[~excluded]
    if values.size < 2 * _NEIGHBOURS:
        return False
    repeats = sum(
        int(((groups[:, lag:] == groups[:, :-lag]) & ~excluded[:, lag:]).sum()) for lag in range(1, groups.shape[1])
    )
    per_group = (~excluded).sum(axis=1)
    pairs = float((per_group * (per_group - 1)).sum()) / 2
    expected = max(_LEAST_RATE, _LEAST_RATIO * _chance(values, mantissa)) * pairs
    # Three standard deviations above what must be exceeded, so that a small matrix is not condemned by chance.
    return repeats > expected + 3 * expected**0.5 and repeats >= 10


def _is_normal(groups: NDArray[Any], mantissa: int) -> NDArray[np.bool_]:
    """Values that are neither zero (pruning) nor subnormal (a coarse grid of the storage type's own)."""
    exponent = (1 << (groups.dtype.itemsize * 8 - 1)) - (1 << mantissa)
    normal: NDArray[np.bool_] = (groups & groups.dtype.type(exponent)) != 0
    return normal


def _is_two_sided(values: NDArray[Any]) -> bool:
    """Whether values stand on both sides of zero; gains around one lie on the storage type's own coarse grid."""
    positive = float(((values >> values.dtype.type(values.dtype.itemsize * 8 - 1)) == 0).mean())
    return _ONE_SIDED <= positive <= 1 - _ONE_SIDED


def _chance(values: NDArray[Any], mantissa: int) -> float:
    """Probability that two values share a bit pattern, were they smooth over an eighth of an octave."""
    # Floats that were widened from a narrower type have empty low bits; bfloat16 is the narrowest that models train in.
    joined = int(np.bitwise_or.reduce(values))
    empty = min((joined & -joined).bit_length() - 1, mantissa - _BFLOAT16_MANTISSA)
    _, counts = np.unique(values >> values.dtype.type(mantissa - 3), return_counts=True)
    same_bin = float((counts.astype(np.float64) * (counts - 1)).sum()) / (values.size * (values.size - 1.0))
    cells = float(2 ** (mantissa - 3 - empty))
    return same_bin / cells

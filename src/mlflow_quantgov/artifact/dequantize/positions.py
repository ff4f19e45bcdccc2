"""Whether stored numbers are what rotary positions are computed with: frequencies, or tables of sines and cosines.

A graph keeps them beside its weights, and the name alone does not make them that: a weight may be called anything.
"""

from __future__ import annotations

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Floats
from mlflow_quantgov.artifact.dequantize.numbers import floats
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor

_MOST_FREQUENCIES = 4096
_MOST_NUMBERS = 1 << 26
"""A table of 131,072 positions for 256 dimensions holds half as many."""
_ROUNDING = 0.03
"""What float32 angles of 131,072 positions, or bfloat16 tables, are off by."""
_FIRST = 0.2
_LEAST = 0.3
"""What the fastest column reaches within the fewest positions, though its angles be a thirtieth of the usual ones."""
_FEWEST = 16
"""Positions: a few rows turn by chance."""


def tells_positions(tensor: Tensor) -> bool:
    """Frequencies from one downwards, a mask of two numbers, or a table whose rows turn by one angle per column."""
    if tensor.dtype not in FLOATS or not 0 < tensor.elements <= _MOST_NUMBERS:
        return False
    sides = [side for side in tensor.shape if side > 1]
    values = floats(tensor).reshape(-1)
    if len(sides) < 2:
        return _are_frequencies(values)
    return _is_mask(values) or _is_turning(values.reshape(-1, tensor.shape[-1]))


def _are_frequencies(values: Floats) -> bool:
    positive = len(values) <= _MOST_FREQUENCIES and bool((values > 0).all()) and values[0] <= 1 + _ROUNDING
    return positive and bool((np.diff(values) <= 0).all())


def _is_mask(values: Floats) -> bool:
    """Zeros, and one other number."""
    other = values[values != 0]
    return bool(len(other) < len(values) and (len(other) == 0 or (other == other[0]).all()))


def _is_turning(rows: Floats) -> bool:
    """Rows t of s cos(n f) or s sin(n f): t(n + 1) + t(n - 1) = 2 cos(f) t(n), with the amplitude s in every row."""
    if len(rows) < _FEWEST or not np.isfinite(rows).all():
        return False
    starts_at_one = bool((rows[0] > 0.5).all())
    if not starts_at_one and np.abs(rows[0]).max() > _ROUNDING:
        return False
    if np.abs(rows[:, 0]).max() < _LEAST:
        return False  # numbers so small that all of them lie within the roundings
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = rows[1] / rows[0] if starts_at_one else np.where(rows[1] == 0, 1, rows[2] / (2 * rows[1]))
    if not (np.abs(cosine) <= 1 + _ROUNDING).all():
        return False
    turned = rows[2:] + rows[:-2] - 2 * cosine * rows[1:-1]
    # The first column turns fastest: its amplitude shows that the rows are no small numbers of another kind.
    one, other, angle = rows[:-1, 0], rows[1:, 0], cosine[0]
    amplitude = one * one + other * other - 2 * angle * one * other
    wanted = amplitude[0]
    return bool(np.abs(turned).max() <= 4 * _ROUNDING and np.abs(amplitude - wanted).max() <= _FIRST * max(wanted, 0.1))

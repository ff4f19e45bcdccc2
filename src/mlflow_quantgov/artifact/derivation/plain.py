"""Tensors that were not quantized: they must be the parent's own numbers, rounded to the type they are stored in."""

from __future__ import annotations

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Floats, Matrix
from mlflow_quantgov.artifact.derivation.casts import CASTS, STORED_AS, unchanged
from mlflow_quantgov.artifact.derivation.descent import LayerDescent
from mlflow_quantgov.artifact.derivation.measure import Factors, scaled

_SCALED_ERROR = 2.0**-7
"""Numbers that were multiplied with a factor in bfloat16 are off by two roundings, each by itself: a row of a router that moved by
as much as the whole tensor may be off would send every token elsewhere."""
_TINY = 2.0**-24
"""The least that float16 tells apart."""


def compare_plain(
    child: Matrix, parent: Matrix, factors: Factors | None = None, norm_shift: float = 0.0
) -> LayerDescent:
    """An unquantized tensor against the parent's.

    Args:
        child: The tensor of the quantized model.
        parent: The parent's, of the same shape.
        factors: Scales folded into the tensor; its numbers then agree up to rounding.
        norm_shift: What the model adds to a norm. llm-compressor adds it too, and takes it away again: what the sum
            rounded away does not come back.
    """
    store = STORED_AS.get(child.kind, unchanged)
    unequal, unequal_shifted, unlike = dict.fromkeys(CASTS, 0), 0, 0
    shift = np.float32(norm_shift)
    error = signal = 0.0
    for start, stop in child.blocks():
        values, weights = child.block(start, stop).values, parent.block(start, stop).values
        weights = scaled(weights, factors, start, stop) if factors else weights
        for name, cast in CASTS.items():
            unequal[name] += _unequal(values, store(cast(weights)))
        unequal_shifted += _unequal(values, store(store(weights + shift) - shift))
        with np.errstate(invalid="ignore", over="ignore"):
            unlike += int((~(np.abs(values - weights) <= 2 * _SCALED_ERROR * np.abs(weights) + _TINY)).sum())
            error += float(np.square(values - weights, dtype=np.float64).sum())
            signal += float(np.square(weights, dtype=np.float64).sum())
    count = max(child.rows * child.columns, 1)
    off = float(np.sqrt(error / signal)) if signal else float(error > 0)
    share = min(*unequal.values(), unequal_shifted) / count
    fits = share == 0 or (factors is not None and off < _SCALED_ERROR and not unlike)
    return LayerDescent(
        name=child.name,
        kind=child.kind,
        bits=None,
        group_size=None,
        weights=count,
        relative_error=off,
        reachable_error=None,
        sqnr_db=decibels(off),
        outside=0.0 if fits else share,
        by_chance=None,
        resolution=_SCALED_ERROR if fits and share and child.rows > 1 else None,
        trace="unchanged" if fits else "none",
        problem=None if fits else f"It was not quantized, and {share:.2%} of its numbers are not the parent's.",
    )


def vector(matrix: Matrix) -> Floats:
    """All values of a vector."""
    return matrix.block(0, 1).values.reshape(-1)


def decibels(relative_error: float) -> float | None:
    """Signal to noise ratio of a relative error; None where nothing differs or nothing is defined."""
    return float(-20 * np.log10(relative_error)) if 0 < relative_error < np.inf else None


def _unequal(values: Floats, expected: Floats) -> int:
    """Numbers that differ; the two zeros are one."""
    return int((values != expected).sum())

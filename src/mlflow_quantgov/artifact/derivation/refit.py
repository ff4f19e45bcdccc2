"""Groups whose codes are the nearest ones at another scale than the one stored.

llama.cpp tries scales and rounds to each; then it stores, beside the codes, the scale that fits them best with every weight
counted by its importance. Where one weight counts far more than the others that scale is theirs no longer, and they lie
outside the cells that it gives. But some scale exists at which the whole group rounds to its codes, and the stored one errs
to both sides, as every weighted least-squares fit does. One scale for the weights of a group is little freedom: of groups that
were not rounded to their codes next to none has such a scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix

MOST_REFITTED = 0.1
"""Share of weights outside the cells of the stored scales up to which it is asked whether other scales hold them; at most 5 % were
measured (SmolLM2, 4 and 5 bit)."""
_WITH_OFFSET = {"Q4_0": False, "Q5_0": False, "Q4_1": True, "Q5_1": True}
"""Storage types with a scale of its own for each group, and whether an offset is fitted with it."""
_LEAST, _MOST = 0.25, 4.0
"""Scales over the stored one that are tried; 0.84 to 1.5 were measured, and further where two weights that count lie close together."""
_STEPS = 32
_GOLDEN = (5**0.5 - 1) / 2


def refitted(
    child: Matrix, weights: Floats, block: Block, tolerance: Floats, outside: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Groups with weights outside their cells whose codes are the nearest at another scale.

    Args:
        child: The quantized matrix.
        weights: The parent's, [rows, columns].
        block: The quantized ones with their cells.
        tolerance: How uncertain the borders of each cell are, [rows, columns].
        outside: Weights outside their cells, [rows, columns].

    Returns:
        [rows, groups], or None where no group is.
    """
    offset = _WITH_OFFSET.get(child.kind)
    size = child.group_size
    if offset is None or not size or not outside.any() or outside.mean() > MOST_REFITTED:
        return None
    assert block.below is not None and block.above is not None, "a quantized matrix has cells"
    asked = np.asarray(outside.reshape(len(weights), -1, size).any(axis=2))
    ours, values, low, high, uncertain = (
        one.reshape(*asked.shape, size)[asked].astype(np.float64)
        for one in (weights, block.values, block.values - block.below, block.values + block.above, tolerance)
    )
    fits = _errs_to_both_sides(ours, values, offset=offset)
    fits[fits] = _holds(ours[fits], low[fits] - uncertain[fits], high[fits] + uncertain[fits], offset=offset)
    if not fits.any():
        return None
    asked[asked] = fits
    return asked


def _errs_to_both_sides(
    weights: NDArray[np.float64], values: NDArray[np.float64], *, offset: bool
) -> NDArray[np.bool_]:
    """Whether the stored scale may be a least-squares fit, whatever the weights count: its normal equation has a solution.

    With w the weights, v the values and c > 0 what each counts, the scale that fits best has sum c (w - v) v = 0, and
    with an offset sum c (w - v) = 0 as well.
    """
    errors = weights - values
    if not offset:
        errors = errors * values
    found: NDArray[np.bool_] = (errors.min(axis=1) <= 0) & (errors.max(axis=1) >= 0)
    return found


def _holds(
    weights: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], *, offset: bool
) -> NDArray[np.bool_]:
    """Whether cells that are stretched by one factor, and moved by one offset, hold all weights of a group.

    How far the best offset leaves a weight outside is convex in the factor, so that golden-section search finds the
    least of it.

    Args:
        weights: [groups, weights of each].
        low: Lower borders; minus infinity for a cell without end.
        high: Upper borders.
        offset: Whether cells may be moved.
    """
    lower, upper = (np.full((len(weights), 1), one) for one in (_LEAST, _MOST))
    for _ in range(_STEPS):
        reach = _GOLDEN * (upper - lower)
        is_left = _left_outside(upper - reach, weights, low, high, offset) <= _left_outside(
            lower + reach, weights, low, high, offset
        )
        lower, upper = np.where(is_left, lower, upper - reach), np.where(is_left, lower + reach, upper)
    return (_left_outside((lower + upper) / 2, weights, low, high, offset) <= 0)[:, 0]


def _left_outside(
    factor: NDArray[np.float64],
    weights: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    offset: bool,
) -> NDArray[np.float64]:
    """How far the worst weight of each group lies outside cells stretched by a factor, [groups, 1]; at most zero for none."""
    above = (weights - factor * high).max(axis=1, keepdims=True)
    below = (factor * low - weights).max(axis=1, keepdims=True)
    found: NDArray[np.float64] = (above + below) / 2 if offset else np.maximum(above, below)
    return found

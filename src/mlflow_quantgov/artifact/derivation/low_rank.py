"""Whether codes that GPTQ is said to have chosen are those of plain rounding of a parent with a merged LoRA.

Of a LoRA of low rank some columns stay nearly as they were, and one of them looks like the column that GPTQ began with.
But take the few largest singular directions away from the difference between stored and parent's weights: of a rounded
parent with a LoRA the rest lies in its cells. What GPTQ passes on from column to column is no few directions: each weight
of a row has an error of its own, and nearly as many weights stay outside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Matrix
from mlflow_quantgov.artifact.derivation.casts import Cast
from mlflow_quantgov.artifact.derivation.measure import Factors, cells, scaled

_RANKS = (1, 2, 4, 8)
_FEW = 16
"""Directions to one that may be taken away: in a matrix of 64 columns eight directions are much of everything that GPTQ moves."""
_PIECES, _ROWS = 8, 32
_COLUMNS = 4096
_LEFT = 0.6
"""Share of the weights outside that GPTQ leaves outside: 0.77 and more was measured, 0.01 to 0.53 of merged LoRAs that can be seen."""


def explained(child: Matrix, parent: Matrix, cast: Cast, factors: Factors) -> str | None:
    """A sentence where a parent with a change of low rank, rounded to the nearest, explains the codes; None elsewhere.

    Args:
        child: The quantized matrix, [rows, columns].
        parent: The parent's, of the same shape.
        cast: Rounding of the parent's weights before they were quantized.
        factors: Factors that the quantizer folded into the matrix.
    """
    found, least, most = _sample(child, parent, cast, factors)
    before = _outside(found, least, most)
    # The left singular vectors; the smaller side makes this cheap.
    _, left = np.linalg.eigh(found @ found.T)
    for rank in (one for one in _RANKS if one == 1 or one * _FEW <= min(found.shape)):
        few = left[:, -rank:].astype(np.float32)
        after = _outside(found - few @ (few.T @ found), least, most)
        if after < _LEFT * before:
            return (
                f"{before:.1%} of the parent's weights do not round to its codes, and {after:.1%} after a change of rank "
                f"{rank} is allowed for: a merged LoRA of low rank leaves this, and what GPTQ moves has no low rank."
            )
    return None


def _sample(child: Matrix, parent: Matrix, cast: Cast, factors: Factors) -> tuple[NDArray[np.float32], ...]:
    """Differences of some weights in steps of their rows, and the least and largest that rounding leaves."""
    parts: list[tuple[NDArray[np.float32], ...]] = []
    last = max(child.rows - _ROWS, 0)
    starts = sorted({start // _ROWS * _ROWS for start in np.linspace(0, last, _PIECES).astype(int).tolist()})
    every = slice(None, None, -(-child.columns // _COLUMNS))
    for start in starts:
        stop = min(start + _ROWS, child.rows)
        weights = scaled(cast(parent.block(start, stop).values), factors, start, stop)
        block = child.block(start, stop)
        width, tolerance = cells(block, child.slack + factors.uncertainty)
        assert block.below is not None and block.above is not None
        step = np.maximum(width.mean(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        difference, least, most = block.values - weights, -(block.above + tolerance), block.below + tolerance
        parts.append(tuple(np.asarray((one / step)[:, every], np.float32) for one in (difference, least, most)))
    return tuple(np.concatenate(ones) for ones in zip(*parts, strict=True))


def _outside(found: NDArray[np.float32], least: NDArray[np.float32], most: NDArray[np.float32]) -> float:
    return float(((found < least) | (found > most)).mean())

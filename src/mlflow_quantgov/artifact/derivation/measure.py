"""One quantized matrix against the parent's, in one pass over row blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix
from mlflow_quantgov.artifact.derivation.casts import Cast
from mlflow_quantgov.artifact.derivation.lattice import unseen_step

Sums = NDArray[np.float64]
_EDGE = 1e-4
"""Part of a cell by which its border is uncertain: quantizers round in float32, and not all break ties alike."""


@dataclass(frozen=True)
class Factors:
    """What the quantizer multiplied the parent's matrix with before rounding."""

    columns: Floats | None = None
    """One factor per input; None for none."""
    rows: Floats | None = None
    """One factor per output; None for none."""
    uncertainty: Floats | float = 0.0
    """Relative uncertainty of the factors, per input or for all."""


@dataclass
class Measured:
    """Sums over the weights of one matrix."""

    columns: int
    weights: int = 0
    rows: int = 0
    signal: float = 0.0
    """Sum of the parent's squares."""
    error: float = 0.0
    """Sum of squared differences."""
    noise: float = 0.0
    """Sum of squared differences that rounding to the nearest level gives on average: a uniform difference in a cell
    of the distances a and b to its borders has the mean square (a^2 - a b + b^2) / 3."""
    outside: int = 0
    far: int = 0
    """Weights more than a whole step away from where they are stored."""
    outside_by_chance: int = 0
    tolerance: float = 0.0
    """Sum over weights of how far each may be moved over a border before it is seen outside its cell."""
    borders: float = 0.0
    """Sum over weights of the reciprocal width of closed cells; half of it for cells that are open on one side."""
    outside_of_column: NDArray[np.int64] = field(init=False)
    column_product: Sums = field(init=False)
    column_signal: Sums = field(init=False)
    slopes: list[Floats] = field(default_factory=list)
    """Least-squares factor between parent and quantized row, block by block."""
    finite: bool = True

    def __post_init__(self) -> None:
        self.outside_of_column = np.zeros(self.columns, dtype=np.int64)
        self.column_product, self.column_signal = np.zeros(self.columns), np.zeros(self.columns)

    @property
    def relative_error(self) -> float:
        """Frobenius norm of the difference over that of the parent."""
        return _ratio(self.error, self.signal)

    @property
    def reachable_error(self) -> float:
        """The same for plain rounding on this grid."""
        return _ratio(self.noise, self.signal)

    @property
    def energy(self) -> float:
        """Squared differences over those of plain rounding: about 1 for rounding."""
        return self.error / self.noise if self.noise else (0.0 if not self.error else np.inf)

    @property
    def share(self) -> float:
        """Share of the parent's weights outside the cell of their code."""
        return self.outside / max(self.weights, 1)

    @property
    def chance(self) -> float:
        """The same for rows that do not belong together."""
        return self.outside_by_chance / max(self.weights, 1)

    @property
    def first_column(self) -> int:
        """Weights outside in the column that has fewest of them: the one that was rounded first."""
        return int(self.outside_of_column.min())


def measure(
    child: Matrix,
    parent: Matrix,
    cast: Cast,
    factors: Factors = Factors(),
    *,
    most_blocks: int | None = None,
) -> Measured:
    """Compare a quantized matrix with the parent's, a few rows at a time.

    Args:
        child: The quantized matrix, [rows, columns].
        parent: The parent's, of the same shape.
        cast: Rounding of the parent's weights before they were quantized.
        factors: Factors that the quantizer folded into the matrix.
        most_blocks: Row blocks to read at most.
    """
    found = Measured(child.columns)
    for number, (start, stop) in enumerate(child.blocks()):
        if most_blocks is not None and number >= most_blocks:
            break
        weights = scaled(cast(parent.block(start, stop).values), factors, start, stop)
        with np.errstate(over="ignore", invalid="ignore"):
            _add(found, weights, child.block(start, stop), child.slack + factors.uncertainty)
    return found


def scaled(weights: Floats, factors: Factors, start: int, stop: int) -> Floats:
    """The parent's rows, as the quantizer saw them."""
    if factors.columns is not None:
        weights = weights * factors.columns
    if factors.rows is not None:
        weights = weights * factors.rows[start:stop, None]
    return weights


def _add(found: Measured, weights: Floats, block: Block, slack: Floats | float) -> None:
    """Add one block of rows to the sums."""
    assert block.below is not None and block.above is not None, "a quantized matrix has cells"
    below, above = block.below, block.above
    if not (np.isfinite(weights).all() and np.isfinite(block.values).all()):
        found.finite = False
        return
    open_below, open_above = np.isinf(below), np.isinf(above)
    low = np.where(open_below, np.where(open_above, 0, above), below)
    high = np.where(open_above, low, above)
    width = low + high
    # A weight at the border of its cell is up to half a step larger than its level.
    tolerance = (np.abs(block.values) + width) * np.asarray(slack, dtype=np.float32)
    tolerance += width * np.float32(_EDGE)
    if block.blur is not None:
        tolerance += block.blur
    difference = weights - block.values
    outside = (difference > above + tolerance) | (difference < -(below + tolerance))
    found.weights += weights.size
    found.rows += len(weights)
    found.signal += float(np.vdot(weights, weights))
    found.error += float(np.vdot(difference, difference))
    found.noise += float((low * low - low * high + high * high).sum(dtype=np.float64)) / 3
    found.outside += int(outside.sum())
    found.far += int((outside & (np.abs(difference) > width + tolerance)).sum())
    found.outside_of_column += outside.sum(axis=0)
    unseen = unseen_step(weights, block)
    found.tolerance += float((tolerance if unseen is None else tolerance + unseen).sum(dtype=np.float64))
    sides = 1 - (open_below.astype(np.float32) + open_above) / 2
    found.borders += float(np.divide(sides, width, out=np.zeros_like(width), where=width > 0).sum(dtype=np.float64))
    found.column_product += (weights * block.values).sum(axis=0, dtype=np.float64)
    found.column_signal += (weights * weights).sum(axis=0, dtype=np.float64)
    power = (weights * weights).sum(axis=1)
    product = (weights * block.values).sum(axis=1)
    found.slopes.append(np.divide(product, power, out=np.ones_like(power), where=power > 0))
    # Rows beside their own: what weights of the same spread show that have nothing to do with these codes.
    other = np.roll(weights, 1, axis=0) - block.values
    found.outside_by_chance += int(((other > above + tolerance) | (other < -(below + tolerance))).sum())


def _ratio(error: float, signal: float) -> float:
    return float(np.sqrt(error / signal)) if signal else (0.0 if not error else float("inf"))

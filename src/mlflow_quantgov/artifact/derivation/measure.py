"""One quantized matrix against the parent's, in one pass over row blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Codebook, Floats, Matrix
from mlflow_quantgov.artifact.derivation.casts import Cast
from mlflow_quantgov.artifact.derivation.lattice import unseen_step
from mlflow_quantgov.artifact.derivation.local import Local
from mlflow_quantgov.artifact.derivation.refit import refitted
from mlflow_quantgov.artifact.derivation.signs import SAMPLE, wrong_signs

Sums = NDArray[np.float64]
_SHRUNK = 3.0
"""Size over the outermost level from which on a weight is no longer cut off but erased."""
PARTS = 16
"""Parts of a cell in which weights are counted by their distance from a border."""
_EVERY, _MANY = 4, 1 << 17
"""Where a block holds that many weights, every fourth row is enough to see where in their cells they lie."""
_TINY = 1e-6
"""Part of the mean width of cells below which a cell belongs to a row of next to nothing: its borders tell nothing of the matrix."""
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
    refitted: int = 0
    """Weights beside those that lie outside their cells, but not outside those of another scale for their group."""
    far: int = 0
    """Weights more than a whole step away from where they are stored."""
    clipped: int = 0
    """Weights beyond the outermost level by more than half a step: its cell has no end, so they lie inside."""
    shrunk: int = 0
    """Of these, weights that are stored at less than a third: levels were chosen that nearly erase them."""
    outside_by_chance: int = 0
    tolerance: float = 0.0
    """Sum over weights of how far each may be moved over a border before it is seen outside its cell."""
    borders: float = 0.0
    """Sum over weights of the reciprocal width of closed cells; half of it for cells that are open on one side."""
    sides: float = 0.0
    """Sum over weights of one for closed cells and a half for those that are open on one side."""
    near: Sums = field(default_factory=lambda: np.zeros(PARTS))
    """Sum of the reciprocal widths over all closed borders of weights, by the weight's distance from the border in
    parts of the cell: equal numbers where weights lie anywhere in their cells."""
    outside_of_column: NDArray[np.int64] = field(init=False)
    outside_of_row: list[NDArray[np.int64]] = field(default_factory=list)
    """Block by block."""
    borders_of_column: Sums = field(init=False)
    """Sum of the reciprocal widths of cells, by column, over the closed borders within a quarter of the cell of a sample of the weights:
    how readily a change of the parent shows there."""
    column_product: Sums = field(init=False)
    column_signal: Sums = field(init=False)
    slopes: list[Floats] = field(default_factory=list)
    """Least-squares factor between parent and quantized row, block by block."""
    sample: Floats | None = None
    """Some of the parent's rows, where signs are all that tells."""
    finite: bool = True
    local: Local = field(default_factory=Local)
    """Damage in a few places."""

    def __post_init__(self) -> None:
        self.outside_of_column = np.zeros(self.columns, dtype=np.int64)
        self.column_product, self.column_signal = np.zeros(self.columns), np.zeros(self.columns)
        self.borders_of_column = np.zeros(self.columns)

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
    def factor(self) -> float:
        """What the stored weights must be multiplied with to come nearest to the parent's."""
        product = float(self.column_product.sum())
        square = self.error - self.signal + 2 * product
        return product / square if square > 0 else 1.0


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
            block = child.block(start, stop)
            if not (np.isfinite(weights).all() and np.isfinite(block.values).all()):
                found.finite = False
            elif child.codebook is not None:
                _add_sums(found, weights, block.values)
                _add_signs(found, weights, block.values, child.codebook)
            else:
                _add_sums(found, weights, block.values)
                _add_cells(found, child, weights, block, child.slack + factors.uncertainty)
    return found


def scaled(weights: Floats, factors: Factors, start: int, stop: int) -> Floats:
    """The parent's rows, as the quantizer saw them."""
    if factors.columns is not None:
        weights = weights * factors.columns
    if factors.rows is not None:
        weights = weights * factors.rows[start:stop, None]
    return weights


def _add_sums(found: Measured, weights: Floats, values: Floats) -> None:
    """Add one block of rows to the sums that need no cells."""
    difference = weights - values
    found.weights += weights.size
    found.rows += len(weights)
    found.signal += float(np.vdot(weights, weights))
    found.error += float(np.vdot(difference, difference))
    found.column_product += (weights * values).sum(axis=0, dtype=np.float64)
    found.column_signal += (weights * weights).sum(axis=0, dtype=np.float64)
    power = (weights * weights).sum(axis=1)
    product = (weights * values).sum(axis=1)
    found.slopes.append(np.divide(product, power, out=np.ones_like(power), where=power > 0))


def _add_signs(found: Measured, weights: Floats, values: Floats, codebook: Codebook) -> None:
    """Add one block of rows whose weights have no cells: what the type reaches, and the signs."""
    found.noise += codebook.reach**2 * float(np.vdot(weights, weights))
    found.outside += int(wrong_signs(weights, values, codebook.signs).sum())
    found.outside_by_chance += int(wrong_signs(np.roll(weights, 1, axis=0), values, codebook.signs).sum())
    if found.sample is None:
        found.sample = weights[: max(1, SAMPLE // max(found.columns, 1))].copy()


def cells(block: Block, slack: Floats | float) -> tuple[Floats, Floats, Floats]:
    """Lower and upper half of each weight's cell (an open one as wide as the closed one), and how uncertain its borders are.

    Args:
        block: Quantized weights with their cells.
        slack: Relative precision of the scale and of factors.
    """
    assert block.below is not None and block.above is not None, "a quantized matrix has cells"
    open_below, open_above = np.isinf(block.below), np.isinf(block.above)
    low = np.where(open_below, np.where(open_above, 0, block.above), block.below)
    high = np.where(open_above, low, block.above)
    width = low + high
    # A weight at the border of its cell is up to half a step larger than its level.
    tolerance = (np.abs(block.values) + width) * np.asarray(slack, dtype=np.float32)
    tolerance += width * np.float32(_EDGE)
    if block.blur is not None:
        tolerance += block.blur
    return low, high, tolerance


def _add_cells(found: Measured, child: Matrix, weights: Floats, block: Block, slack: Floats | float) -> None:
    """Add one block of rows of weights with cells."""
    assert block.below is not None and block.above is not None, "a quantized matrix has cells"
    below, above = block.below, block.above
    low, high, tolerance = cells(block, slack)
    width = low + high
    difference = weights - block.values
    strayed = (difference > above + tolerance) | (difference < -(below + tolerance))
    outside, groups = strayed, refitted(child, weights, block, tolerance, strayed)
    if groups is not None:
        outside = strayed & ~np.repeat(groups, weights.shape[1] // groups.shape[1], axis=1)
        found.refitted += int(strayed.sum()) - int(outside.sum())
    noise = (low * low - low * high + high * high).sum(axis=1, dtype=np.float64) / 3
    found.noise += float(noise.sum())
    found.outside += int(outside.sum())
    clipped = ~strayed & (np.abs(difference) > np.maximum(low, high) + tolerance)
    found.clipped += int(clipped.sum())
    found.shrunk += int((clipped & (np.abs(weights) > _SHRUNK * np.abs(block.values))).sum())
    found.far += int((outside & (np.abs(difference) > width + tolerance)).sum())
    found.outside_of_column += outside.sum(axis=0)
    found.outside_of_row.append(outside.sum(axis=1))
    past = np.where(strayed, np.abs(difference) - np.where(difference > 0, above, below), np.float32(0))
    found.local.add(child, weights, block, outside, past, noise)
    found.local.add_refitted(groups)
    unseen = unseen_step(weights, block)
    found.tolerance += float((tolerance if unseen is None else tolerance + unseen).sum(dtype=np.float64))
    sides = 1 - (np.isinf(below).astype(np.float32) + np.isinf(above)) / 2
    found.sides += float(sides.sum(dtype=np.float64))
    least = np.float32(_TINY) * width.mean(dtype=np.float64).astype(np.float32)
    reciprocal = np.divide(np.float32(1), width, out=np.zeros_like(width), where=width > least)
    found.borders += float(np.vdot(sides, reciprocal))
    some = slice(None, None, _EVERY if weights.size >= _MANY else 1)
    scale = len(weights) / len(weights[some])
    for distance in (below[some] + difference[some], above[some] - difference[some]):
        parts = _parts(distance, reciprocal[some])
        found.near += _near(parts, reciprocal[some]) * scale
        found.borders_of_column += (
            np.where(parts < PARTS / 4, reciprocal[some], 0).sum(axis=0, dtype=np.float64) * scale
        )
    # Rows beside their own: what weights of the same spread show that have nothing to do with these codes.
    other = np.roll(weights, 1, axis=0) - block.values
    found.outside_by_chance += int(((other > above + tolerance) | (other < -(below + tolerance))).sum())


def _parts(distance: Floats, reciprocal: Floats) -> Floats:
    """Distances from a border in parts of the cell; infinite distances belong to no border."""
    # What lies outside by less than the tolerance lies at the border.
    with np.errstate(invalid="ignore"):
        return np.asarray(np.maximum(distance * reciprocal, np.float32(0)) * PARTS)


def _near(parts: Floats, reciprocal: Floats) -> Sums:
    """Reciprocal widths by the part of the cell in which a weight lies."""
    counted = parts < PARTS
    found = np.bincount(parts[counted].astype(np.intp), weights=reciprocal[counted], minlength=PARTS)
    return np.asarray(found, dtype=np.float64)


def _ratio(error: float, signal: float) -> float:
    return float(np.sqrt(error / signal)) if signal else (0.0 if not error else float("inf"))

"""Damage in a few places, which sums over a whole matrix drown: groups that were emptied, rows or columns that are another's.

The cells of a wide scale hold every weight, and the outermost cells of a narrow one have no end. But no rounding empties a
group of weights with a scale of its own, since its largest weight fixes that scale; and no rounding moves a row by more than
the row itself, since zero is a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix
from mlflow_quantgov.artifact.derivation.counting import allowance

_LEFT = 0.05
"""Share of a group's energy that any rounding leaves."""
_AGAINST = 1.5
"""Squared difference over a row's own squares: zeros have 1, the row of another 2, the opposite 4."""
_LEAST_BITS = 3
"""Below it compensation may move a row by as much as it holds."""
_WEAK = {4: 0.05, 3: 0.5}
"""Energy of a place, over that of an average one, below which a scale that serves others too may lose it, by width."""
_WEAKEST = 1.5
"""The same for narrower types."""
_LEAST_LEVELS = 1.5
"""Bits below which a type has two levels."""
_MOST_OF_LINE = 0.02
"""Share of one row or column that may lie outside its cells where rounding is claimed."""
_FEW = 3
"""Weights of a line that may lie outside beside these, since there are many lines."""
_BEYOND = {4: 0.25, 3: 0.75}
"""Squared distance of a row from its cells, over its own squares, that compensation may cost, by width."""
_WIDE = {4: 0.25, 3: 0.5}
"""Squared error that rounding to a row's cells gives on average, over the row's own squares, from which on little is left of it, by width."""
_MOST_WIDE = 0.02
"""Share of rows whose cells may be so wide: their scale serves one weight far from the others."""


@dataclass
class Local:
    """Counts over a matrix."""

    emptied: int = 0
    """Groups of which next to nothing is left."""
    against: int = 0
    """Rows that were moved by more than themselves."""
    groups: int = 0
    rows: int = 0
    strayed: int = 0
    """Rows of which more weights lie outside their cells than rounding leaves."""
    beyond: int = 0
    """Rows that lie further from their cells than compensation moves them."""
    wide: int = 0
    """Rows whose cells hold about anything."""

    def add_cells(
        self, child: Matrix, weights: Floats, outside: NDArray[np.bool_], past: Floats, noise: Floats
    ) -> None:
        """Add what the cells of some whole rows say.

        Args:
            child: The matrix.
            weights: The parent's, [rows, columns].
            outside: Weights outside their cells, [rows, columns].
            past: How far, [rows, columns].
            noise: Sum over each row of the squared error that rounding gives on average, [rows].
        """
        energy = _energy(weights, 1, weights.shape[1])[:, 0]
        bits = int(child.bits or 16)
        strong = (energy > 0) & (energy >= _weak(bits) * float(energy.mean()))
        most = line_allowance(weights.shape[1])
        self.strayed += int((strong & (outside.sum(axis=1) > most)).sum())
        if bits < _LEAST_BITS:
            return
        far = _energy(past, 1, past.shape[1])[:, 0] > _BEYOND[min(bits, 4)] * energy
        self.beyond += int((strong & far).sum())
        self.wide += int((strong & (noise > _WIDE[min(bits, 4)] * energy)).sum())

    def add(self, child: Matrix, weights: Floats, block: Block) -> None:
        """Add some whole rows, [rows, columns]."""
        values = block.values
        if not weights.size:
            return
        size = child.group_size if child.group_size and weights.shape[1] % child.group_size == 0 else weights.shape[1]
        count = weights.shape[1] // size
        of_group = _energy(weights, count, size)
        energy = of_group.sum(axis=1)
        typical = float(energy.mean())
        if not typical > 0:
            return
        bits = child.bits or 16
        weak = _weak(int(bits))
        if bits >= _LEAST_BITS:
            moved = _energy(weights - values, 1, weights.shape[1])[:, 0]
            self.against += int(((moved >= _AGAINST * energy) & (energy >= weak * typical)).sum())
        strong = of_group >= weak * typical / count
        left = _energy(values, count, size) + _vanished(block, count, size)
        self.emptied += int((strong & (left < _LEFT * _reachable(child, weights, of_group, size))).sum())
        self.rows += len(weights)
        self.groups += of_group.size

    @property
    def problem(self) -> str | None:
        """In words, where something was seen that no rounding does; None where nothing was."""
        if self.emptied:
            return (
                f"Of {self.emptied:,} of {self.groups:,} groups of weights next to nothing is left: rounding keeps the largest "
                "of each."
            )
        if self.against:
            return f"{self.against:,} of {self.rows:,} rows are further from the parent's than zeros: no rounding moves them so far."
        if self.wide > _MOST_WIDE * self.rows:
            return f"The cells of {self.wide:,} of {self.rows:,} rows are so wide that they hold about anything."
        if self.beyond:
            return f"{self.beyond:,} of {self.rows:,} rows lie further from their codes than any quantizer moves them."
        return None

    def problem_of_rounding(self, outside_of_column: NDArray[np.int64], signal: NDArray[np.float64]) -> str | None:
        """The same where rounding to the nearest is claimed, which leaves no row and no column behind.

        Args:
            outside_of_column: Weights outside their cells by column.
            signal: The parent's sum of squares by column.
        """
        if self.strayed:
            return f"{self.strayed:,} of {self.rows:,} rows were changed: their weights do not round to the codes, all others do."
        strong = (signal > 0) & (signal >= _WEAK[4] * float(signal.mean()))
        columns = int((strong & (outside_of_column > line_allowance(self.rows))).sum())
        if columns:
            return f"{columns:,} of {len(signal):,} columns were changed: their weights do not round to the codes, all others do."
        return None


def line_allowance(count: int) -> float:
    """Weights of one row or column that may lie outside."""
    return allowance(_MOST_OF_LINE, count) + _FEW


def _vanished(block: Block, groups: int, size: int) -> NDArray[np.float64] | float:
    """Sum of squares of what groups may have held whose scale was rounded to zero, beside the scales of others."""
    if block.blur is None or block.below is None or block.above is None:
        return 0.0
    is_gone = np.minimum(block.below, block.above) == 0
    return _energy(np.where(is_gone, block.blur, np.float32(0)), groups, size)


def _reachable(child: Matrix, weights: Floats, energy: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Sum of squares that a group keeps at best: of two levels of one size, that of its mean magnitude."""
    if child.bits is None or child.bits >= _LEAST_LEVELS:
        return energy
    sums = np.abs(weights).reshape(*energy.shape, size).sum(axis=2, dtype=np.float64)
    return np.asarray(np.square(sums) / size)


def _weak(bits: int) -> float:
    return _WEAK[4] if bits >= 4 else _WEAK.get(bits, _WEAKEST)


def _energy(values: Floats, groups: int, size: int) -> NDArray[np.float64]:
    """Sum of squares of each group of each row, [rows, groups]."""
    squares = np.square(values, dtype=np.float32).reshape(len(values), groups, size)
    found: NDArray[np.float64] = squares.sum(axis=2, dtype=np.float64)
    return found

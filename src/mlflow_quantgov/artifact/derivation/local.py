"""Damage in a few places, which sums over a whole matrix drown: groups that were emptied, rows or columns that are another's.

The cells of a wide scale hold every weight, and the outermost cells of a narrow one have no end. But no rounding empties a
group of weights with a scale of its own, since its largest weight fixes that scale; and no rounding moves a row by more than
the row itself, since zero is a level. What looks at inputs makes exceptions where one of them is far larger than the others: an
importance matrix fits a scale to the one weight behind it, and compensation blows up rows. Few of each are believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix
from mlflow_quantgov.artifact.derivation.counting import allowance

Sums = NDArray[np.float64]
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
COMPENSATING = frozenset({"gptq", "int", "MatMulNBits", "I4", "U4"})
"""Storage types that GPTQ writes. The others only ever come from rounding."""
_LONGER, _ALONG = 1.5, 0.1
"""Squares of a row over the parent's, and the cosine between both, from which on compensation may have blown it up: where one
input is far larger than all others, errors that cost nothing there pile up in the rows that write a large output."""
_MOST_BLOWN = 0.005
"""Share of such rows. Of SmolLM2's 576 rows GPTQ of 3 bit left two, 14 and 28 times their own squares away."""
_WEIGHTED = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"})
"""Storage types whose scales llama.cpp fits to weights by their importance."""
_ESTIMATED = frozenset({"I4", "U4"})
"""Storage types whose scales nncf estimates from data: a weight that counts and has the code zero may make its group's scale hundreds of
times too large, and all of it zero."""
_OVERFLOWN = 25.0
"""Half a step over the largest weight of such a group; 120 and more were measured."""
_MOST_STARVED = 0.002
"""Share of groups whose scale may serve the one weight that an importance matrix counts, and cut off the others; at most 0.05 % were
measured."""
_BARE = 1 / 8
"""Share of one row's groups for which that is believed: the inputs that count are few."""
_MOST_REFITTED = 0.75
"""Share of one row's groups, but for one, that may need another scale than the stored one; at most 0.58 were measured."""


@dataclass
class Local:
    """Counts over a matrix."""

    emptied: int = 0
    """Groups of which next to nothing is left."""
    starved: int = 0
    """Such groups whose codes are the nearest all the same: all but one or two weights were cut off at the outermost level."""
    bare: int = 0
    """Rows with more of those than an importance matrix makes."""
    against: int = 0
    """Rows that were moved by more than themselves."""
    blown: int = 0
    """Rows that compensation may have moved by more than themselves: far longer than the parent's, and not across them."""
    groups: int = 0
    rows: int = 0
    strayed: int = 0
    """Rows of which more weights lie outside their cells than rounding leaves."""
    beyond: int = 0
    """Rows that lie further from their cells than compensation moves them, but for those that it blows up."""
    refitted: int = 0
    """Rows most of whose groups are roundings at another scale than the stored one: more than an importance matrix leaves."""
    wide: int = 0
    """Rows whose cells hold about anything."""

    def add(
        self, child: Matrix, weights: Floats, block: Block, outside: NDArray[np.bool_], past: Floats, noise: Floats
    ) -> None:
        """Add some whole rows.

        Args:
            child: The matrix.
            weights: The parent's, [rows, columns].
            block: The quantized ones with their cells.
            outside: Weights outside their cells, [rows, columns].
            past: How far, [rows, columns].
            noise: Sum over each row of the squared error that rounding gives on average, [rows].
        """
        columns = weights.shape[1]
        size = child.group_size if child.group_size and columns % child.group_size == 0 else columns
        of_group = _energy(weights, columns // size, size)
        energy = of_group.sum(axis=1)
        typical = float(energy.mean()) if energy.size else 0.0
        if not typical > 0:
            return
        bits = int(child.bits or 16)
        least = _weak(bits) * typical
        strong = (energy > 0) & (energy >= least)
        self.strayed += int((strong & (outside.sum(axis=1) > line_allowance(columns))).sum())
        if bits >= _LEAST_BITS:
            self._add_moved(child, weights, block, energy, strong, past)
            self.wide += int((strong & (noise > _WIDE[min(bits, 4)] * energy)).sum())
        self._add_emptied(child, weights, block, of_group, least, outside)
        self.rows += len(weights)
        self.groups += of_group.size

    def add_refitted(self, groups: NDArray[np.bool_] | None) -> None:
        """Add which groups of some rows are roundings at another scale than the stored one, [rows, groups]."""
        if groups is not None:
            self.refitted += int((groups.sum(axis=1) > _MOST_REFITTED * groups.shape[1] + 1).sum())

    def _add_moved(
        self, child: Matrix, weights: Floats, block: Block, energy: Sums, strong: NDArray[np.bool_], past: Floats
    ) -> None:
        """Rows that were moved far, by their own measure."""
        moved = _energy(weights - block.values, 1, weights.shape[1])[:, 0]
        far = _energy(past, 1, past.shape[1])[:, 0] > _BEYOND[min(int(child.bits or 16), 4)] * energy
        against = moved >= _AGAINST * energy
        if child.kind in COMPENSATING and (against | far).any():
            length = _energy(block.values, 1, weights.shape[1])[:, 0]
            along = (energy + length - moved) / 2 > _ALONG * np.sqrt(energy * length)
            blown = strong & (against | far) & along & (length >= _LONGER * energy)
            self.blown += int(blown.sum())
            strong = strong & ~blown
        self.against += int((strong & against).sum())
        self.beyond += int((strong & far).sum())

    def _add_emptied(
        self, child: Matrix, weights: Floats, block: Block, energy: Sums, least: float, outside: NDArray[np.bool_]
    ) -> None:
        """Groups of which next to nothing is left."""
        count, size = energy.shape[1], weights.shape[1] // energy.shape[1]
        left = _energy(block.values, count, size) + _vanished(block, count, size)
        strong = energy >= least / count
        emptied = strong & (left < _LEFT * _reachable(child, weights, energy, size))
        if child.kind in _WEIGHTED | _ESTIMATED and emptied.any():
            starved = emptied & ~outside.reshape(*energy.shape, size).any(axis=2)
            starved &= (left > 0) if child.kind in _WEIGHTED else _overflown(weights, block, *energy.shape)
            self.starved += int(starved.sum())
            self.bare += int((starved.sum(axis=1) > max(1, _BARE * count)).sum())
            emptied &= ~starved
        self.emptied += int(emptied.sum())

    def problem(self, *, compensated: bool) -> str | None:
        """In words, where something was seen that no rounding does; None where nothing was.

        Args:
            compensated: Whether the claim is that errors of one weight were made good by others, as GPTQ does.
        """
        if self.emptied or self.bare or self.starved > max(1, _MOST_STARVED * self.groups):
            return (
                f"Of {self.emptied + self.starved:,} of {self.groups:,} groups of weights next to nothing is left: rounding keeps "
                "the largest of each."
            )
        excused = self.blown if compensated and self.blown <= max(1, _MOST_BLOWN * self.rows) else 0
        if self.against + self.blown > excused:
            return (
                f"{self.against + self.blown:,} of {self.rows:,} rows are further from the parent's than zeros: no rounding moves "
                "them so far."
            )
        if self.wide > _MOST_WIDE * self.rows:
            return f"The cells of {self.wide:,} of {self.rows:,} rows are so wide that they hold about anything."
        if self.beyond:
            return f"{self.beyond:,} of {self.rows:,} rows lie further from their codes than any quantizer moves them."
        return None

    def problem_of_rounding(self, outside_of_column: NDArray[np.int64], signal: Sums) -> str | None:
        """The same where rounding to the nearest is claimed, which leaves no row and no column behind.

        Args:
            outside_of_column: Weights outside their cells by column.
            signal: The parent's sum of squares by column.
        """
        if self.strayed:
            return f"{self.strayed:,} of {self.rows:,} rows were changed: their weights do not round to the codes, all others do."
        if self.refitted:
            return f"The scales of {self.refitted:,} of {self.rows:,} rows were changed: other scales fit most of their codes."
        strong = (signal > 0) & (signal >= _WEAK[4] * float(signal.mean()))
        columns = int((strong & (outside_of_column > line_allowance(self.rows))).sum())
        if columns:
            return f"{columns:,} of {len(signal):,} columns were changed: their weights do not round to the codes, all others do."
        return None


def line_allowance(count: int) -> float:
    """Weights of one row or column that may lie outside."""
    return allowance(_MOST_OF_LINE, count) + _FEW


def _overflown(weights: Floats, block: Block, rows: int, groups: int) -> NDArray[np.bool_]:
    """Groups whose scale is so far above their weights that nothing but an estimate gone wrong made it."""
    assert block.below is not None and block.above is not None, "a quantized matrix has cells"
    half = np.minimum(block.below, block.above).reshape(rows, groups, -1).min(axis=2)
    return np.asarray(half > _OVERFLOWN * np.abs(weights).reshape(rows, groups, -1).max(axis=2))


def _vanished(block: Block, groups: int, size: int) -> Sums | float:
    """Sum of squares of what groups may have held whose scale was rounded to zero, beside the scales of others."""
    if block.blur is None or block.below is None or block.above is None:
        return 0.0
    is_gone = np.minimum(block.below, block.above) == 0
    return _energy(np.where(is_gone, block.blur, np.float32(0)), groups, size)


def _reachable(child: Matrix, weights: Floats, energy: Sums, size: int) -> Sums:
    """Sum of squares that a group keeps at best: of two levels of one size, that of its mean magnitude."""
    if child.bits is None or child.bits >= _LEAST_LEVELS:
        return energy
    sums = np.abs(weights).reshape(*energy.shape, size).sum(axis=2, dtype=np.float64)
    return np.asarray(np.square(sums) / size)


def _weak(bits: int) -> float:
    return _WEAK[4] if bits >= 4 else _WEAK.get(bits, _WEAKEST)


def _energy(values: Floats, groups: int, size: int) -> Sums:
    """Sum of squares of each group of each row, [rows, groups]."""
    squares = np.square(values, dtype=np.float32).reshape(len(values), groups, size)
    found: Sums = squares.sum(axis=2, dtype=np.float64)
    return found

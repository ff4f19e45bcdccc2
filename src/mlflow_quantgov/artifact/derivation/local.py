"""Damage in a few places, which sums over a whole matrix drown: groups that were emptied, rows that are another's.

The cells of a wide scale hold every weight, and the outermost cells of a narrow one have no end. But no rounding empties a
group of weights with a scale of its own, since its largest weight fixes that scale; and no rounding moves a row by more than
the row itself, since zero is a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Floats, Matrix

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


@dataclass
class Local:
    """Counts over a matrix."""

    emptied: int = 0
    """Groups of which next to nothing is left."""
    against: int = 0
    """Rows that were moved by more than themselves."""
    groups: int = 0
    rows: int = 0

    def add(self, child: Matrix, weights: Floats, values: Floats) -> None:
        """Add some whole rows, [rows, columns]."""
        bits = child.bits or 16
        energy = np.square(weights, dtype=np.float32).sum(axis=1, dtype=np.float64)
        typical = float(energy.mean()) if energy.size else 0.0
        if not typical > 0:
            return
        weak = _WEAK[4] if bits >= 4 else _WEAK.get(int(bits), _WEAKEST)
        if bits >= _LEAST_BITS:
            moved = np.square(weights - values, dtype=np.float32).sum(axis=1, dtype=np.float64)
            self.against += int(((moved >= _AGAINST * energy) & (energy >= weak * typical)).sum())
        self.rows += len(weights)
        size = child.group_size if child.group_size and weights.shape[1] % child.group_size == 0 else weights.shape[1]
        count = weights.shape[1] // size
        of_group, left = (
            np.square(one, dtype=np.float32).reshape(len(weights), count, size).sum(axis=2, dtype=np.float64)
            for one in (weights, values)
        )
        strong = of_group >= weak * typical / count
        self.emptied += int((strong & (left < _LEFT * of_group)).sum())
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
        return None

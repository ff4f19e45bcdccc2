"""What tells GPTQ from another model's weights: most of the parent's lie outside the cells of their codes after either.

GPTQ rounds one column after the other and adds what each rounding leaves to the columns that follow. So the first column was
rounded as it was, and whatever comes after it was moved, in every row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.derivation.counting import MOST_OUTSIDE, allowance, at_most, least_rate
from mlflow_quantgov.artifact.derivation.measure import Measured

_LUCK = 0.01
_LIVE = 0.01
"""Signal of a column, over that of an average one, from which on it can tell anything."""
_UNEVEN = {"rows": 1.0, "columns": 3.0}
"""Variance of the weights outside by row and by column over the square of their mean, beyond that of counts: 1 where half of the rows has none, 3 where three
quarters of the columns have. Of GPTQ (SmolLM2, 3, 4 and 8 bit) at most 0.4 and 2.3 were measured."""


@dataclass(frozen=True)
class Column:
    """The column that fits best among those of all matrices which multiply the same input."""

    rows: int
    outside: int
    """Weights outside their cells in that column."""
    columns: int
    share: float
    """Share outside over all columns."""
    weight: float = 1.0
    """Readiness to show a change, over that of an average column; at most 1. A column of large weights that lie on the outermost
    level of their scale shows nothing."""

    @property
    def rounds(self) -> bool:
        """Whether no more of its weights lie outside than rounding leaves."""
        return self.outside <= allowance(MOST_OUTSIDE, self.rows)

    @property
    def fits(self) -> bool:
        """Whether it was rounded as it was, like the column that GPTQ begins with, and not by luck among so many."""
        return self.rounds and self.columns * self.luck < _LUCK

    @property
    def luck(self) -> float:
        """Probability of so few outside in a column that was changed as all others were."""
        return at_most(self.outside, self.rows * self.share * self.weight)

    @property
    def excluded(self) -> float:
        """Share outside that is too large for what was seen: so few in the luckiest of all columns."""
        if not self.weight > 0:
            return 1.0
        return min(least_rate(self.outside, 0.05 / self.columns) / (self.rows * self.weight), 1.0)


def best_column(found: Iterable[Measured]) -> Column:
    """The best column of matrices that share their input: GPTQ treats their columns in the same order."""
    all_of_them = list(found)
    outside = np.sum([one.outside_of_column for one in all_of_them], axis=0)
    # A column without weights (padding) is rounded as it was whoever trained the rest.
    signal = np.sum([one.column_signal for one in all_of_them], axis=0)
    live = np.flatnonzero(signal > _LIVE * float(signal.mean()))
    rows = sum(one.rows for one in all_of_them)
    share = float(outside.sum()) / max(rows * len(outside), 1)
    weights = _weights(np.sum([one.borders_of_column for one in all_of_them], axis=0))
    seen = [Column(rows, int(outside[one]), len(live), share, float(weights[one])) for one in live]
    if rounded := [one for one in seen if one.rounds]:
        return min(rounded, key=lambda one: one.luck)
    return min(seen, key=lambda one: one.outside, default=Column(rows, rows, 1, share))


def _weights(borders: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = float(borders.mean())
    return np.minimum(borders / mean, 1.0) if mean > 0 else np.ones_like(borders)


def unlike_compensation(found: Measured) -> str | None:
    """Why weights outside their cells lie where GPTQ leaves none, or too few; None where they lie everywhere."""
    counts = {"rows": np.concatenate(found.outside_of_row), "columns": found.outside_of_column}
    for name, one in counts.items():
        if unevenness(one) > _UNEVEN[name] + 4 * math.sqrt(2 / len(one)) / max(float(one.mean()), 1e-9):
            return f"Of its {len(one):,} {name} some were changed and the others were not: rounding and compensating its errors changes them all."
    return None


def unevenness(counts: NDArray[np.int64]) -> float:
    """Variance of rates over the square of their mean, of counts that follow Poisson's distribution about them."""
    mean = float(counts.mean())
    return (float(counts.var()) - mean) / mean**2 if mean > 0 else 0.0

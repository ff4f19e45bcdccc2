"""How small a change of the parent would still be noticed."""

from __future__ import annotations

import math

from mlflow_quantgov.artifact.derivation.measure import Measured

_STEPS = 60
MARGIN = 1.25
"""Searched scales leave somewhat fewer weights near the borders of their cells than the formula assumes."""


def outside_of_change(change: float, found: Measured) -> float:
    """Share of weights that leave their cell when the parent is changed.

    A weight that was rounded lies anywhere in its cell with equal probability. A change d pushes it over a border
    with the probability (|d| - t) / w, where w is the width of the cell and t the tolerance; for normally distributed
    changes with standard deviation `change` the mean of max(|d| - t, 0) is 2 (s f(t / s) - t (1 - F(t / s))).

    Args:
        change: Standard deviation of the change, in units of the weights.
        found: Sums over the matrix.
    """
    if change <= 0 or not found.weights:
        return 0.0
    tolerance = found.tolerance / found.weights
    ratio = tolerance / change
    density = math.exp(-ratio * ratio / 2) / math.sqrt(2 * math.pi)
    beyond = 2 * (change * density - tolerance * 0.5 * math.erfc(ratio / math.sqrt(2)))
    return min(beyond * found.borders / found.weights, 1.0)


def change_of_outside(share: float, found: Measured) -> float:
    """Relative change of the parent (to its norm) at which a share of weights leaves the cell; inf where none does."""
    spread = math.sqrt(found.signal / found.weights) if found.weights else 0.0
    if not spread or outside_of_change(spread, found) < share:
        return math.inf
    low, high = 0.0, spread
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if outside_of_change(middle, found) > share else (middle, high)
    return MARGIN * high / spread

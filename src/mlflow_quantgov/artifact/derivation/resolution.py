"""How small a change of the parent would still be noticed."""

from __future__ import annotations

import math

import numpy as np

from mlflow_quantgov.artifact.derivation.measure import PARTS, Measured

_STEPS = 60
MARGIN = 1.25
"""Room for what the formula leaves out: widths that differ within a matrix, and changes that are not normal."""


def outside_of_change(change: float, found: Measured, *, anywhere: bool = False) -> float:
    """Share of weights that leave their cell when the parent is changed.

    A weight at the distance x from a border crosses it by a normally distributed change of standard deviation s with
    the probability 1 - F((x + t) / s), where t is the tolerance and F the normal distribution. Over weights that lie
    anywhere between the distances x and y with equal probability its mean is (G(x + t) - G(y + t)) / (y - x), where
    G(z) = s f(z / s) - z (1 - F(z / s)) and f is the normal density. How many lie at which distance was counted: of
    a parent that was on a grid itself, or of cells that are wider than the weights spread, few lie near a border.

    Args:
        change: Standard deviation of the change, in units of the weights.
        found: Sums over the matrix.
        anywhere: Take the weights to lie anywhere in their cells, as they did before errors were compensated.
    """
    if change <= 0 or not found.weights or not found.borders:
        return 0.0
    tolerance, width = found.tolerance / found.weights, found.sides / found.borders
    evenly = np.full(PARTS, 2 * found.borders / PARTS)
    # Weights on the very border, as those of 16-bit types may be, cross it no sooner than their neighbours.
    near = evenly if anywhere else np.minimum(found.near, evenly)
    beyond = [_beyond(tolerance + width * part / PARTS, change) for part in range(PARTS + 1)]
    crossed = sum(PARTS * count * (beyond[part] - beyond[part + 1]) for part, count in enumerate(near))
    return float(min(crossed / found.weights, 1.0))


def _beyond(distance: float, change: float) -> float:
    """Mean of what a normally distributed change exceeds a distance by."""
    ratio = distance / change
    density = math.exp(-ratio * ratio / 2) / math.sqrt(2 * math.pi)
    return change * density - distance * 0.5 * math.erfc(ratio / math.sqrt(2))


def change_of_outside(share: float, found: Measured, *, anywhere: bool = False) -> float:
    """Relative change of the parent (to its norm) at which a share of weights leaves the cell; inf where none does."""
    spread = math.sqrt(found.signal / found.weights) if found.weights else 0.0
    if not spread or outside_of_change(spread, found, anywhere=anywhere) < share:
        return math.inf
    low, high = 0.0, spread
    for _ in range(_STEPS):
        middle = (low + high) / 2
        more = outside_of_change(middle, found, anywhere=anywhere) > share
        low, high = (low, middle) if more else (middle, high)
    return MARGIN * high / spread

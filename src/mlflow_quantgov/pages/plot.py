"""The plots of the report, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.artifact.derivation.descent import LayerDescent

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 720, 190, 24, 44, 16, 46
_LAYERS_LEFT, _LAYERS_HEIGHT = 64, 240


@dataclass(frozen=True)
class Interval:
    """One capability's difference, in points (hundredths of the score)."""

    label: str
    estimate: float
    lower: float
    upper: float
    margin: float
    outcome: str


def _step(width: float) -> int:
    """Smallest of 1, 2, 5, 10, 20, ... whole points that needs at most nine ticks."""
    return next(size * 10**power for power in range(300) for size in (1, 2, 5) if width / (size * 10**power) <= 9)


@dataclass(frozen=True)
class Plot:
    """Coordinates of an interval plot, ready for the template."""

    width: int
    height: int
    zero: float
    ticks: tuple[tuple[float, str], ...]
    rows: tuple[dict[str, Any], ...]


def interval_plot(intervals: list[Interval]) -> Plot | None:
    """Place every interval, its margin and the axis; None where there is nothing to show."""
    if not intervals:
        return None
    low = min(min(one.lower, -one.margin) for one in intervals) * 100 - 3
    high = max(max(one.upper, 0.0) for one in intervals) * 100 + 3
    step = _step(high - low)

    def place(points: float) -> float:
        return round(LEFT + (points - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    first = int(low // step) * step
    values = [value for value in range(first, int(high) + step, step) if low <= value <= high]
    rows = tuple(
        {
            "label": one.label,
            "outcome": one.outcome,
            "y": TOP + ROW * index + ROW / 2,
            "lower": place(one.lower * 100),
            "upper": place(one.upper * 100),
            "estimate": place(one.estimate * 100),
            "margin": place(-one.margin * 100),
        }
        for index, one in enumerate(intervals)
    )
    ticks = tuple((place(value), f"{value:+d}" if value else "0") for value in values)
    return Plot(WIDTH, TOP + ROW * len(intervals) + BOTTOM, place(0), ticks, rows)


@dataclass(frozen=True)
class LayerPlot:
    """Coordinates of the error of every quantized matrix, ready for the template."""

    width: int
    height: int
    ticks: tuple[tuple[float, str], ...]
    points: tuple[dict[str, Any], ...]


def layer_plot(layers: Sequence[LayerDescent]) -> LayerPlot | None:
    """Place the relative error of each matrix, and what rounding on its own grid reaches, on a logarithmic axis.

    Args:
        layers: Compared tensors; unquantized ones are left out.

    Returns:
        None where no matrix was quantized.
    """
    shown = [one for one in layers if one.bits is not None and 0 < one.relative_error < math.inf]
    if not shown:
        return None
    values = [value for one in shown for value in (one.relative_error, one.reachable_error) if value]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    high = max(high, low + 1)
    bottom = _LAYERS_HEIGHT - BOTTOM

    def place(value: float) -> float:
        return round(bottom - (math.log10(value) - low) / (high - low) * (bottom - TOP), 1)

    step = (WIDTH - _LAYERS_LEFT - RIGHT) / len(shown)
    points = tuple(
        {
            "name": one.name,
            "x": round(_LAYERS_LEFT + step * (index + 0.5), 1),
            "y": place(one.relative_error),
            "reach": place(one.reachable_error) if one.reachable_error else None,
            "half": round(min(step / 2, 8), 1),
            "outcome": "fail" if one.problem else "pass",
            "error": one.relative_error,
        }
        for index, one in enumerate(shown)
    )
    ticks = tuple((place(10.0**power), f"{100 * 10.0**power:g} %") for power in range(low, high + 1))
    return LayerPlot(WIDTH, _LAYERS_HEIGHT, ticks, points)

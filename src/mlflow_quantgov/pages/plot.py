"""The interval plot of the report, as inline SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 720, 190, 24, 44, 16, 46


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

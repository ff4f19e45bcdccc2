"""What the parent's layers see and what rounding costs each of them, in depth order, as inline SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mlflow_quantgov.evidence.likeness import ACTIVATIONS, STANDARDS
from mlflow_quantgov.evidence.predicates.calibration import Calibration, LayerRecord

WIDTH, LEFT, RIGHT = 720, 64, 24
_TOP, _PANEL, _GAP, _BOTTOM = 28, 130, 44, 44
_MOST = 5
_BLOCK = re.compile(r"\.(\d+)\.")
_RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_NEAR_ONE = (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2)
_BLOCK_TICKS = 12
_TICK = 16
"""Least distance of two labels of an axis."""


@dataclass(frozen=True)
class Panel:
    """One axis with its bars."""

    top: float
    bottom: float
    base: float
    """Where bars begin: zero, or equal errors."""
    ticks: tuple[tuple[float, str], ...]
    bars: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class ActivationsPlot:
    """Coordinates of both panels, ready for the template."""

    width: int
    height: int
    distances: Panel
    threshold: float
    """Height of what the mean over layers may be."""
    ratios: Panel | None
    blocks: tuple[tuple[float, str], ...]
    """Numbers of blocks along the depth."""


@dataclass(frozen=True)
class ActivationsSection:
    """The view as people read it."""

    plot: ActivationsPlot
    farthest: tuple[LayerRecord, ...]
    """Layers that differ most."""
    ratio: float | None
    """Median over layers of error on production over error on calibration data."""
    costliest: LayerRecord | None
    """Where that is largest."""
    unmeasured: int
    """Layers without errors."""


def activations_section(content: Calibration) -> ActivationsSection | None:
    """Place the layers of a statement; None where it holds none."""
    if not content.layers:
        return None
    rated = [(one.ratio, one) for one in content.layers if one.ratio is not None]
    return ActivationsSection(
        activations_plot(content.layers),
        tuple(sorted(content.layers, key=lambda one: -one.distance)[:_MOST]),
        median(ratio for ratio, _ in rated) if rated else None,
        max(rated, key=lambda one: one[0])[1] if rated else None,
        len(content.layers) - len(rated),
    )


def activations_plot(layers: Sequence[LayerRecord]) -> ActivationsPlot:
    """Two panels over the depth of the model: distance of what a layer reads, and ratio of its output errors.

    Args:
        layers: At least one, in depth order.
    """
    step = (WIDTH - LEFT - RIGHT) / len(layers)
    rated = [one.ratio for one in layers if one.ratio is not None]
    distances, threshold = _distances(layers, step)
    ratios = _ratios(layers, rated, step) if rated else None
    bottom = ratios.bottom if ratios else distances.bottom
    return ActivationsPlot(
        WIDTH, round(bottom + _BOTTOM), distances, threshold, ratios, _blocks([one.name for one in layers], step)
    )


def _distances(layers: Sequence[LayerRecord], step: float) -> tuple[Panel, float]:
    """The upper panel, and the height of the threshold."""
    limit = STANDARDS[ACTIVATIONS].threshold
    shown = [max(one.distance, 0.0) for one in layers]
    unit = _nice(max(*shown, limit * 1.2) / 4)
    ticks = math.ceil(max(*shown, limit * 1.2) / unit - 1e-9)
    bottom = _TOP + _PANEL

    def place(value: float) -> float:
        return round(bottom - value / (ticks * unit) * _PANEL, 1)

    bars = tuple(
        _bar(number, step, place(value), bottom, f"{one.name}: {value:.1%} of production's spread")
        for number, (one, value) in enumerate(zip(layers, shown, strict=True))
    )
    axis = tuple((place(number * unit), f"{100 * number * unit:g} %") for number in range(ticks + 1))
    return Panel(_TOP, bottom, bottom, axis, bars), place(limit)


def _ratios(layers: Sequence[LayerRecord], rated: Sequence[float], step: float) -> Panel:
    """The lower panel, on a logarithmic axis around one."""
    clipped = [min(max(one, _RATIOS[0]), _RATIOS[-1]) for one in rated]
    near = min(clipped) >= _NEAR_ONE[0] and max(clipped) <= _NEAR_ONE[-1]
    values = _NEAR_ONE if near else _RATIOS
    low = max(one for one in values if one <= min(*clipped, 0.9 if near else 0.5))
    high = min(one for one in values if one >= max(*clipped, 1.1 if near else 2))
    top = _TOP + _PANEL + _GAP
    bottom = top + _PANEL

    def place(value: float) -> float:
        within = min(max(value, low), high)
        return round(bottom - math.log(within / low) / math.log(high / low) * _PANEL, 1)

    bars = tuple(
        _bar(number, step, place(one.ratio), place(1), f"{one.name}: {one.ratio:.2f} times")
        for number, one in enumerate(layers)
        if one.ratio is not None
    )
    ticks: list[tuple[float, str]] = []
    # From one outwards, so that one is always there; what would stand upon another is left out.
    for one in sorted((one for one in values if low <= one <= high), key=lambda one: abs(math.log(one))):
        if all(abs(place(one) - y) >= _TICK for y, _ in ticks):
            ticks.append((place(one), f"{one:g} x"))
    return Panel(top, bottom, place(1), tuple(ticks), bars)


def _bar(number: int, step: float, end: float, base: float, label: str) -> dict[str, Any]:
    gap = min(1.0, step * 0.2)
    return {
        "x": round(LEFT + number * step + gap / 2, 2),
        "width": round(max(step - gap, 0.3), 2),
        "y": min(end, base),
        "height": round(max(abs(base - end), 0.5), 1),
        "label": label,
    }


def _blocks(names: Sequence[str], step: float) -> tuple[tuple[float, str], ...]:
    """Where each block begins; some are left out where there are many."""
    first: dict[int, float] = {}
    for number, name in enumerate(names):
        found = _BLOCK.search(name)
        if found and len(found[1]) < 5:
            first.setdefault(int(found[1]), round(LEFT + number * step, 1))
    every = max(1, math.ceil(len(first) / _BLOCK_TICKS))
    return tuple((place, str(block)) for number, (block, place) in enumerate(first.items()) if number % every == 0)


def _nice(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(size * power for size in (1, 2, 5, 10) if size * power >= least * (1 - 1e-9))

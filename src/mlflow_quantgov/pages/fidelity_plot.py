"""How the divergences of all tokens are spread, as inline SVG."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.evidence.predicates.base import Predicate
from mlflow_quantgov.evidence.predicates.fidelity import KL_EDGES, Fidelity

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 220, 64, 24, 26, 46
_JOINED = 8
"""Bins of the records that make one bar: four bars to a factor of ten."""


@dataclass(frozen=True)
class KlPlot:
    """Coordinates of a histogram on a logarithmic axis, ready for the template."""

    width: int
    height: int
    bottom: int
    bars: tuple[dict[str, Any], ...]
    ticks: tuple[tuple[float, str], ...]
    shares: tuple[tuple[float, str], ...]
    marks: tuple[dict[str, Any], ...]
    """Mean and 99th percentile."""


def kl_plot(content: Predicate | None) -> KlPlot | None:
    """Place the share of tokens by their divergence; None where version 1 did not record it."""
    if not isinstance(content, Fidelity):
        return None
    counts: Counter[int] = Counter()
    for document in content.documents:
        for place, count in document.kl_counts:
            # One bar takes what lies below the axis, another what lies above.
            counts[0 if not place else (place - 1) // _JOINED + 1] += count
    first, last = min(counts), max(counts)
    tokens, most = sum(counts.values()), max(counts.values())
    step = (WIDTH - LEFT - RIGHT) / (last - first + 1)
    bottom = HEIGHT - BOTTOM

    def place_of(value: float) -> float:
        """Of a divergence, on the axis of the bars."""
        bars = (math.log10(max(value, KL_EDGES[0])) - math.log10(KL_EDGES[0])) * 32 / _JOINED + 1
        return round(LEFT + min(max(bars - first, 0.0), last - first + 1) * step, 1)

    bars = tuple(
        {
            "x": round(LEFT + (index - first) * step + 1, 1),
            "width": round(max(step - 2, 1), 1),
            "height": round(count / most * (bottom - TOP), 1),
            "share": count / tokens,
            "label": _range(index),
        }
        for index, count in sorted(counts.items())
    )
    powers = (power for power in range(-6, 3) if first <= (power + 6) * 32 / _JOINED + 1 <= last + 1)
    ticks = tuple((place_of(10.0**power), f"{10.0**power:g}") for power in powers)
    shares = ((bottom, "0"), (TOP, f"{most / tokens:.1%}"))
    summary = content.recompute()
    marks = tuple(
        {"x": (x := place_of(summary[key])), "label": label, "text": x + 6 * side, "anchor": anchor}
        # On either side of their lines, so that they never meet.
        for key, label, side, anchor in (("kl_mean", "mean", -1, "end"), ("kl_p99", "99 %", 1, "start"))
    )
    return KlPlot(WIDTH, HEIGHT, bottom, bars, ticks, shares, marks)


def _range(bar: int) -> str:
    """What a bar counts, in words."""
    if bar == 0:
        return f"below {KL_EDGES[0]:g}"
    if bar * _JOINED >= len(KL_EDGES):
        return f"{KL_EDGES[-1]:g} and more"
    return f"{KL_EDGES[(bar - 1) * _JOINED]:.2g} to {KL_EDGES[bar * _JOINED]:.2g}"

"""What the sums over a matrix say about the claim that it was rounded from the parent's.

The limits were set from real artifacts (docs/explanation/descent.md): of a true parent's weights at most 0.08 % lie
outside the cells of plain rounding; GPTQ's squared error is 1.2 to 3.1 times that of plain rounding there, and the
theory in `resolution.py` says what a changed parent does to either.
"""

from __future__ import annotations

import math

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Matrix
from mlflow_quantgov.artifact.derivation.compensation import Column, unlike_compensation
from mlflow_quantgov.artifact.derivation.counting import MOST_OUTSIDE, allowance, least_rate
from mlflow_quantgov.artifact.derivation.descent import LayerDescent, Trace, Verdict
from mlflow_quantgov.artifact.derivation.local import COMPENSATING
from mlflow_quantgov.artifact.derivation.measure import Measured
from mlflow_quantgov.artifact.derivation.plain import decibels
from mlflow_quantgov.artifact.derivation.resolution import change_of_outside

MOST_FAR = 2e-4
"""Share that may be more than a step away from where it is stored."""
MOST_ENERGY = 6.0
"""Squared error over that of plain rounding which compensation may cost: 5.6 was measured behind one input that outweighs all others (SmolLM2
at 4 bit), elsewhere at most 3.1."""
_MOST_REFITTED_ENERGY = 3.0
"""The same where weights were rounded at other scales than those stored: at most 1.6 was measured (SmolLM2), 2.0 of
made-up importances."""
_REFITTED_MARGIN = 1.25
"""Room for changes of the parent that stored scales and offsets follow, and that move fewer weights out of their cells."""
_AS_ROUNDING = 1.2
"""Squared error over that of plain rounding up to which nothing says that it was another model, whatever the type."""
_MOST_ERROR = 1.1
"""Relative error above which nothing is left of a weight but its sign; writing zeros has an error of 1."""
_MOST_CLIPPED = 0.1
"""Share of weights that a quantizer may cut off at its outermost levels. Of true parents at most 1.1 % were (MXFP4), but for types of two levels."""
_MOST_SHRUNK = {"Q2_K": 0.02}
"""Share of weights that may be stored at less than a third, where it is not that which may lie outside: Q2_K's four levels leave one side
short where an importance matrix counts the other (0.7 % in a matrix of SmolLM2, 0.4 % of Student's weights)."""
_BLIND = 0.3
"""Change of the parent from which on a matrix proves nothing if it would not have shown."""
_EXACT = 0.01
_SEES_NOTHING = "Its levels are so far apart that another model's weights would round to the same codes."
_TELLING = 0.02
_EXPLAINED = 0.1
_CLOSE = 0.3
_OPTIMISED = COMPENSATING | {
    "auto-round", "awq", "float8", "mxfp4", "nvfp4", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
}  # fmt: skip
"""Storage types whose quantizers may choose codes that are not the nearest (AutoRound, which exports to compressed-tensors
too; an importance matrix)."""
_SIZE = 0.02
"""What the sizes of a type with two levels may be off by: ggml stores the mean, which fits best."""


def judge(child: Matrix, found: Measured, column: Column) -> tuple[LayerDescent, Verdict]:
    """Trace, problem and verdict of one quantized matrix.

    Args:
        child: The matrix.
        found: Sums over its weights.
        column: The best column of the matrices that share its input.
    """
    if not found.finite:
        return layer_of(child, found, found.share, None, "none", "It holds numbers that are not finite."), "refuted"
    if found.chance < _TELLING and found.relative_error > _CLOSE:
        return layer_of(child, found, found.share, None, "none", _SEES_NOTHING), "unproved"
    inside = found.outside <= allowance(MOST_OUTSIDE, found.weights)
    inside = inside and found.far <= allowance(MOST_FAR, found.weights)
    unlike = _unlike_rounding(child, found) if inside else None
    if unlike:
        return layer_of(child, found, found.share, None, "none", unlike), "unproved"
    if inside and 2 * found.sides <= found.weights and abs(found.factor - 1) > _SIZE:
        problem = (
            f"It stores signs and one size for many weights, and the sizes fit weights {found.factor:.2f} times those "
            "stored."
        )
        return layer_of(child, found, found.share, None, "none", problem), "unproved"
    if (inside or column.fits) and (damage := found.local.problem(compensated=not inside)):
        return layer_of(child, found, found.share, None, "none", damage), "unproved"
    if inside and (damage := found.local.problem_of_rounding(found.outside_of_column, found.column_signal)):
        return layer_of(child, found, found.share, None, "none", damage), "unproved"
    if inside and found.refitted and (damage := _misfit(found)):
        return layer_of(child, found, found.share, None, "none", damage), "unproved"
    if inside:
        # Whatever other scales excuse, a larger change would have moved more weights out of the cells of those stored.
        resolution = change_of_outside(least_rate(found.outside + found.refitted, 0.05) / found.weights, found)
        resolution *= _REFITTED_MARGIN if found.refitted else 1
        # Weights that are stored as they were need no other proof.
        if not resolution < _BLIND and found.relative_error > _EXACT:
            return layer_of(child, found, found.share, None, "none", _SEES_NOTHING), "unproved"
        return layer_of(child, found, found.share, resolution, "rounded", None), "proved"
    if child.kind in COMPENSATING and found.energy <= MOST_ENERGY and column.fits:
        if uneven := unlike_compensation(found):
            return layer_of(child, found, found.share, None, "none", uneven), "unproved"
        resolution = change_of_outside(column.excluded, found, anywhere=True)
        if not resolution < _BLIND:
            return layer_of(child, found, found.share, None, "none", _SEES_NOTHING), "unproved"
        return layer_of(child, found, column.outside / column.rows, resolution, "compensated", None), "proved"
    return _unfit(child, found)


def _unlike_rounding(child: Matrix, found: Measured) -> str | None:
    """Why levels are none that anybody rounds to, whose cells hold everything; None where they are."""
    if found.relative_error > _MOST_ERROR:
        return f"The difference is {found.relative_error:.1f} times the weights themselves: these levels keep nothing of them."
    if found.clipped > _MOST_CLIPPED * found.weights and 2 * found.sides > found.weights:
        return f"{found.clipped / found.weights:.0%} of the parent's weights lie beyond its outermost levels."
    if (
        found.shrunk > allowance(_MOST_SHRUNK.get(child.kind, MOST_OUTSIDE), found.weights)
        and 2 * found.sides > found.weights
    ):
        return f"{found.shrunk:,} of the parent's weights are more than three times its outermost levels: they are all but erased."
    return None


def _misfit(found: Measured) -> str | None:
    """Why scales are none that an importance matrix gives, though codes are the nearest at others; None where they may be."""
    if found.energy > _MOST_REFITTED_ENERGY:
        return (
            f"Its weights round to its codes, but not at the scales stored: the difference is {math.sqrt(found.energy):.1f} times "
            "that of rounding."
        )
    return scaled_columns(found)


def _unfit(child: Matrix, found: Measured) -> tuple[LayerDescent, Verdict]:
    """A matrix that was not rounded from this parent as it stands."""
    emptied = _emptied_columns(child, found)
    if emptied:
        return layer_of(child, found, found.share, None, "none", emptied), "unproved"
    scaled = scaled_columns(found)
    rounds = child.kind not in _OPTIMISED and scaled is None
    if found.energy > MOST_ENERGY or (rounds and found.energy > _AS_ROUNDING):
        problem = (
            f"{_counted(found)} of the parent's weights do not round to its codes ({found.chance:.0%} would not by "
            f"chance); the difference is {math.sqrt(found.energy):.1f} times that of rounding."
        )
        return layer_of(child, found, found.share, None, "none", scaled or problem), "refuted"
    problem = (
        f"It lies within rounding of the parent, but {_counted(found)} of the weights do not round to its codes: "
        "a fine-tuned or once before quantized parent leaves this, and so does a quantizer that chooses its codes "
        "otherwise (AutoRound, an importance matrix)."
    )
    return layer_of(child, found, found.share, None, "none", scaled or problem), "unproved"


def _emptied_columns(child: Matrix, found: Measured) -> str | None:
    """A sentence where columns of zeros are all that makes it another model: GPTQ empties those whose inputs it never saw."""
    gone = (found.column_product == 0) & (found.column_signal > 0)
    lost = float(found.column_signal[gone].sum())
    if child.kind not in COMPENSATING or not lost or found.error - lost > MOST_ENERGY * found.noise:
        return None
    return (
        f"{int(gone.sum()):,} of its {len(gone):,} columns hold nothing but zeros, and the parent's do not: GPTQ empties columns "
        "whose inputs were zero on every text that it saw, and so can anybody."
    )


def _counted(found: Measured) -> str:
    """What lies outside, as the count that decided: few far ones would be lost in a share."""
    if found.outside > allowance(MOST_OUTSIDE, found.weights):
        return f"{found.share:.1%}"
    return f"{found.outside:,} ({found.far:,} by more than a step)"


def scaled_columns(found: Measured) -> str | None:
    """A sentence where factors per input channel make up much of the difference.

    For any other difference the least-squares factors explain one part in as many as a channel has weights.
    """
    signal = found.column_signal
    if not (np.isfinite(found.column_product).all() and np.isfinite(signal).all()):
        return None
    slopes = np.divide(found.column_product, signal, out=np.ones_like(signal), where=signal > 0)
    explained = float((np.square(slopes - np.median(slopes)) * signal).sum()) / max(found.error, 1e-30)
    if explained < _EXPLAINED + 4 / max(found.rows, 1):
        return None
    low, high = np.quantile(slopes, [0.01, 0.99])
    return (
        f"Its input channels are the parent's times {low:.2f} to {high:.2f}, and nothing before it takes that back: "
        "the model does not compute what its parent computes."
    )


def layer_of(
    child: Matrix, found: Measured, outside: float, resolution: float | None, trace: Trace, problem: str | None
) -> LayerDescent:
    """What was found of one matrix."""
    return LayerDescent(
        name=child.name,
        kind=child.kind,
        bits=child.bits,
        group_size=child.group_size,
        weights=found.weights,
        relative_error=found.relative_error,
        reachable_error=found.reachable_error,
        sqnr_db=decibels(found.relative_error),
        outside=outside,
        by_chance=found.chance,
        resolution=resolution,
        trace=trace,
        problem=problem,
    )

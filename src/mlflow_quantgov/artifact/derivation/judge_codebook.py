"""What can be said of a matrix whose weights are entries of a codebook.

No weight has a cell. What can be compared is the size of the difference, and the signs where the type stores them apart
from its entries. Limits were set from what llama.cpp's quantizer wrote (docs/explanation/descent.md): on normal, Laplace
and Student (4) distributed weights, with importance matrices that spread over up to four orders of magnitude, the
squared error is 0.6 to 2 times that on normal weights without a matrix, and no sign is wrong.
"""

from __future__ import annotations

import math

from mlflow_quantgov.artifact.dequantize.interface import Matrix
from mlflow_quantgov.artifact.derivation.counting import MOST_OUTSIDE, allowance, least_rate
from mlflow_quantgov.artifact.derivation.descent import LayerDescent, Verdict
from mlflow_quantgov.artifact.derivation.folding import rows_were_scaled
from mlflow_quantgov.artifact.derivation.judge import layer_of, scaled_columns
from mlflow_quantgov.artifact.derivation.measure import Measured
from mlflow_quantgov.artifact.derivation.resolution import MARGIN
from mlflow_quantgov.artifact.derivation.signs import change_of_signs

MOST_SQUARED = 4.0
"""Squared error over that of the type on normal weights: twice the largest that was measured of a true parent. Another
model's weights show 8.6 and more."""

_LEAST_FACTOR, _MOST_FACTOR = 0.8, 1.05
"""The quantizer stores larger weights than fit best; 0.85 to 0.98 was measured."""

_LEAST_ROWS = 0.3
"""Up to 0.18 was measured of true parents, whose importances may differ as rows do; 0.46 where rows differ by 10 %."""


def judge_codebook(child: Matrix, found: Measured) -> tuple[LayerDescent, Verdict]:
    """Trace, problem and verdict of one matrix of a codebook.

    Args:
        child: The matrix; it has a codebook.
        found: Sums over its weights.
    """
    assert child.codebook is not None and (found.sample is not None or not found.finite)
    if not found.finite:
        return layer_of(child, found, found.share, None, "none", "It holds numbers that are not finite."), "refuted"
    if found.energy > MOST_SQUARED:
        problem = (
            f"The difference is {math.sqrt(found.energy):.1f} times what {child.kind} leaves on weights of its own "
            f"({child.codebook.reach:.0%} of their norm)."
        )
        # A few weights far from all others cost as much, and another model has other signs.
        kept = child.codebook.signs != "mixed" and found.outside <= allowance(MOST_OUTSIDE, found.weights)
        return layer_of(child, found, found.share, None, "none", problem), "unproved" if kept else "refuted"
    if child.codebook.signs == "mixed":
        problem = (
            f"It is as near to the parent as {child.kind} comes. But this type stores eight weights as one entry of a "
            "table and has no trace that would tell the parent from a fine-tuned one."
        )
        return layer_of(child, found, found.share, None, "none", problem), "unproved"
    scaled = scaled_columns(found) or _scaled_otherwise(found)
    if scaled is not None:
        return layer_of(child, found, found.share, None, "none", scaled), "unproved"
    if found.outside > allowance(MOST_OUTSIDE, found.weights):
        problem = (
            f"{found.share:.1%} of its signs are not what the parent's weights give ({found.chance:.0%} would not be by "
            f"chance), and {child.kind} keeps them."
        )
        return layer_of(child, found, found.share, None, "none", problem), "refuted"
    assert found.sample is not None
    excluded = least_rate(found.outside, 0.05) / found.weights
    resolution = MARGIN * change_of_signs(excluded, found.sample, child.codebook.signs)
    return layer_of(child, found, found.share, resolution, "rounded", None), "proved"


def _scaled_otherwise(found: Measured) -> str | None:
    """A sentence where rows, or the whole, have another size: signs say nothing of it."""
    if rows_were_scaled(found, _LEAST_ROWS):
        return "Its rows are the parent's times factors of their own, and signs cannot show whether that is taken back."
    if not _LEAST_FACTOR < found.factor < _MOST_FACTOR:
        return f"Its sizes fit weights {found.factor:.2f} times those stored, and signs say nothing of sizes."
    return None

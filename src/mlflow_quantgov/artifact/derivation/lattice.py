"""Changes that no border shows: weights and borders that are numbers of the same 16-bit type.

Scales that are powers of two put the borders of cells where bfloat16 weights can lie. A weight on a border belongs to
both sides. So a weight that is moved by one step of its type is never seen on the wrong side, and one that is moved by n
steps is seen as if by n - 1.
"""

from __future__ import annotations

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats
from mlflow_quantgov.artifact.dequantize.numbers import rounding_of
from mlflow_quantgov.artifact.derivation.casts import to_bfloat16, to_float16

_SAMPLED = 4096
_TYPES = ((to_bfloat16, 2.0**-8), (to_float16, 2.0**-11))


def unseen_step(weights: Floats, block: Block) -> Floats | None:
    """Distance between neighbours of the weights' type at the border of each cell; None where borders lie elsewhere.

    Args:
        weights: The parent's, as the quantizer saw them.
        block: The quantized ones with their cells.
    """
    assert block.below is not None and block.above is not None, "a quantized matrix has cells"
    some = np.linspace(0, weights.size - 1, min(weights.size, _SAMPLED)).astype(np.intp)
    few = weights.reshape(-1)[some]
    for cast, precision in _TYPES:
        if np.array_equal(cast(few), few):
            values, below, above = (np.ravel(one)[some] for one in (block.values, block.below, block.above))
            borders = _outer(values, below, above)
            if (cast(borders) == borders).mean() < 0.5:
                return None
            return 2 * rounding_of(_outer(block.values, block.below, block.above), precision)
    return None


def _outer(values: Floats, below: Floats, above: Floats) -> Floats:
    """The border of each cell that is further from zero, or the other one where it has none."""
    upper = np.where(values >= 0, np.isfinite(above), ~np.isfinite(below))
    return np.asarray(np.where(upper, values + above, values - below), dtype=np.float32)

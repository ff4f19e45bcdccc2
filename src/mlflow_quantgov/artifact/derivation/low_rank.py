"""Whether codes that GPTQ is said to have chosen are those of plain rounding of a parent with a merged LoRA.

Of a LoRA of low rank some columns stay nearly as they were, and one of them looks like the column that GPTQ began with.
But take the few largest singular directions away from the difference between stored and parent's weights: of a rounded
parent with a LoRA the rest lies in its cells. What GPTQ passes on from column to column is no few directions: each weight
of a row has an error of its own, and about as many weights stay outside as would if their signs were left to chance. That
is what the rest is compared with, as the largest directions of a small matrix are much of it, whatever it holds.

Where one input is far larger than the others, GPTQ moves most weights along one direction too. But it leaves weights that no
change of that rank and rounding explain, and a merged LoRA leaves none but at the very borders of their cells, as the directions
themselves are known only so well.

One direction is not compared at all: a norm that centres takes it out of every input, so GPTQ may move weights along it as
it likes, and whatever stands there changes an output by a constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Matrix
from mlflow_quantgov.artifact.derivation.casts import Cast
from mlflow_quantgov.artifact.derivation.counting import allowance
from mlflow_quantgov.artifact.derivation.measure import Factors, cells, scaled
from mlflow_quantgov.artifact.derivation.plain import vector

Sample = NDArray[np.float32]
_RANKS = (1, 2, 4, 8)
_FEW = 16
"""Directions to one that may be taken away: in a matrix of 64 columns eight directions are much of everything that GPTQ moves."""
_PIECES, _ROWS = 8, 32
_COLUMNS = 4096
_LEFT = 0.57
"""Weights outside over those that would be by chance: GPTQ leaves 0.69 and more where inputs are of one size, merged LoRAs that can be seen
0.04 to 0.55."""
_CLEAR = 1e-4
"""Share of weights clearly outside that rounding after a LoRA leaves: of 24 merged ones at most 0.00012 in 24,576 weights; of matrices of SmolLM2
behind one large input GPTQ left 0.00025 to 0.018."""
_SPREAD = 0.29
"""Standard deviation of a difference that rounding leaves, in steps."""
_MERGED = np.float32(2.0**-8)
"""Relative rounding error of bfloat16, in which the merged parent may have been stored."""
_BLOCK = re.compile(r"^.*?\.\d+\.")


def unseen(name: str, tensors: Mapping[str, Matrix]) -> list[NDArray[np.float32]]:
    """Directions among the inputs of a matrix that the norms of its block take away, each [columns].

    A norm with a bias is taken for one that centres: its output has no part along the reciprocals of its weights.

    Args:
        name: The matrix.
        tensors: The quantized model's.
    """
    block = _BLOCK.match(name)
    found = []
    for norm, one in tensors.items():
        is_norm = block is not None and norm.startswith(block[0]) and norm.endswith(".weight") and one.rows == 1
        if is_norm and one.columns == tensors[name].columns and f"{norm.removesuffix('weight')}bias" in tensors:
            weights = vector(one)
            if (weights != 0).all() and np.isfinite(weights).all():
                found.append((1 / weights).astype(np.float32))
    return found


def explained(
    child: Matrix, parent: Matrix, cast: Cast, factors: Factors, free: Iterable[NDArray[np.float32]] = ()
) -> str | None:
    """A sentence where a parent with a change of low rank, rounded to the nearest, explains the codes; None elsewhere.

    Args:
        child: The quantized matrix, [rows, columns].
        parent: The parent's, of the same shape.
        cast: Rounding of the parent's weights before they were quantized.
        factors: Factors that the quantizer folded into the matrix.
        free: Directions along which no input has a part, each [columns].
    """
    every = slice(None, None, -(-child.columns // _COLUMNS))
    found, least, most, stored = _sample(child, parent, cast, factors, every)
    before = _outside(found, least, most)
    directions = [one[every] for one in free]
    if directions:
        basis, _ = np.linalg.qr(np.stack(directions, axis=1))
        found = found - (found @ basis) @ basis.T
    turned = np.random.default_rng(0).random(found.shape) < 0.5
    least_turned, most_turned = np.where(turned, -most, least), np.where(turned, -least, most)
    for (rank, after), (_, by_chance) in zip(_rests(found), _rests(np.where(turned, -found, found)), strict=True):
        share = _outside(after, least, most)
        if share >= _LEFT * _outside(by_chance, least_turned, most_turned):
            continue
        # Each weight moves by what its row and its column have of directions that were fitted to noise.
        room = 4 * _SPREAD * np.sqrt(rank / found.shape[0] + rank / found.shape[1]) + stored * _MERGED
        clear = _outside(after, least - room, most + room) * found.size
        if clear <= allowance(_CLEAR, found.size):
            return (
                f"{before:.1%} of the parent's weights do not round to its codes, and {share:.1%} after a change of rank "
                f"{rank} is allowed for: a merged LoRA of low rank leaves this, and what GPTQ moves has no low rank."
            )
    return None


def _rests(found: Sample) -> Iterator[tuple[int, Sample]]:
    """What is left after the largest directions are taken away, with their number."""
    # The left singular vectors; the smaller side makes this cheap.
    _, left = np.linalg.eigh(found @ found.T)
    for rank in (one for one in _RANKS if one == 1 or one * _FEW <= min(found.shape)):
        few = left[:, -rank:].astype(np.float32)
        yield rank, found - few @ (few.T @ found)


def _sample(child: Matrix, parent: Matrix, cast: Cast, factors: Factors, every: slice) -> tuple[Sample, ...]:
    """Differences of some weights in steps of their rows, the least and largest that rounding leaves, and sizes as stored."""
    parts: list[tuple[Sample, ...]] = []
    last = max(child.rows - _ROWS, 0)
    starts = sorted({start // _ROWS * _ROWS for start in np.linspace(0, last, _PIECES).astype(int).tolist()})
    for start in starts:
        stop = min(start + _ROWS, child.rows)
        weights = scaled(cast(parent.block(start, stop).values), factors, start, stop)
        block = child.block(start, stop)
        low, high, tolerance = cells(block, child.slack + factors.uncertainty)
        assert block.below is not None and block.above is not None
        step = np.maximum((low + high).mean(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        difference, least, most = block.values - weights, -(block.above + tolerance), block.below + tolerance
        ones = (difference, least, most, np.abs(block.values))
        parts.append(tuple(np.asarray((one / step)[:, every], np.float32) for one in ones))
    return tuple(np.concatenate(one) for one in zip(*parts, strict=True))


def _outside(found: Sample, least: Sample, most: Sample) -> float:
    return float(((found < least) | (found > most)).mean())

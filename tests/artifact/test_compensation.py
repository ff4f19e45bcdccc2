"""Other weights than the parent's that look as if GPTQ had moved them, in some column or because few were changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix
from mlflow_quantgov.artifact.derivation.compensation import best_column, unevenness
from mlflow_quantgov.artifact.derivation.judge import judge
from mlflow_quantgov.artifact.derivation.measure import measure

Rows = np.ndarray[Any, Any]
SHAPE, GROUP = (2048, 256), 32


def parent_rows(seed: int = 0) -> Rows:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def verdict_of(child: Rows, parent: Rows) -> tuple[str, str | None]:
    """Of a matrix that was rounded to 4 bit with one scale for 32 weights: the largest one becomes -8, as onnxruntime has it."""
    groups = child.reshape(len(child), -1, GROUP)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[..., None], axis=2)
    scale = largest / -8
    codes = np.clip(np.rint(groups / scale), -8, 7)
    size = np.abs(scale)
    towards = np.sign(scale)
    half = np.broadcast_to(size / 2, groups.shape)
    open_ends = np.float32(np.inf)
    below = np.where(codes * towards == np.where(towards > 0, -8, -7), open_ends, half)
    above = np.where(codes * towards == np.where(towards > 0, 7, 8), open_ends, half)
    block = Block(*(one.reshape(SHAPE).astype(np.float32) for one in (codes * scale, below, above)))

    def read(start: int, stop: int) -> Block:
        assert block.below is not None and block.above is not None
        return Block(block.values[start:stop], block.below[start:stop], block.above[start:stop])

    made = Matrix("x", SHAPE, "MatMulNBits", (), read, 4, GROUP, 2.0**-20)
    truth = Matrix("x", SHAPE, "F32", (), lambda start, stop: Block(parent[start:stop]))
    found = measure(made, truth, lambda values: values)
    layer, verdict = judge(made, found, best_column([found]))
    return verdict, layer.problem


def test_a_column_on_the_outermost_level_is_no_witness() -> None:
    """Its scale is its own weight's, so that it rounds to the same code whatever it was before."""
    parent = parent_rows()
    parent[:, 5] = 8 + np.float32(0.5) * parent[:, 5]
    assert verdict_of(parent, parent)[0] == "proved"
    assert verdict_of(parent + np.float32(0.03) * parent_rows(1), parent)[0] == "unproved"


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_few_changed_rows_are_no_compensation(share: float) -> None:
    parent = parent_rows()
    parent *= np.exp(np.random.default_rng(2).standard_normal(SHAPE[1])).astype(np.float32)
    changed, count = parent.copy(), int(share * SHAPE[0])
    changed[:count] *= np.random.default_rng(1).uniform(0.5, 1.5, (count, 1)).astype(np.float32)
    verdict, problem = verdict_of(changed, parent)
    assert verdict != "proved" and problem


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_few_changed_columns_are_no_compensation(share: float) -> None:
    parent, count = parent_rows(), int(share * SHAPE[1])
    changed = parent.copy()
    changed[:, :count] += np.float32(0.2) * parent_rows(1)[:, :count]
    verdict, problem = verdict_of(changed, parent)
    assert verdict == "unproved" and "columns some were changed" in str(problem)


def test_unevenness_is_that_of_the_rates() -> None:
    random = np.random.default_rng(0)
    assert abs(unevenness(random.poisson(3.0, 20000))) < 0.05
    half = np.where(np.arange(20000) % 2 == 0, 6.0, 0.0)
    assert abs(unevenness(random.poisson(half)) - 1) < 0.1
    assert unevenness(np.zeros(10, dtype=np.int64)) == 0

"""Scales that are powers of two put borders where bfloat16 weights lie; the resolution must know."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize import Block, matrices
from mlflow_quantgov.artifact.dequantize.numbers import E2M1, lookup
from mlflow_quantgov.artifact.derivation.casts import to_bfloat16, to_float16
from mlflow_quantgov.artifact.derivation.lattice import unseen_step
from mlflow_quantgov.artifact.derivation.measure import measure
from mlflow_quantgov.artifact.derivation.resolution import outside_of_change

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_floats as narrow
import descent_parents as others
import descent_quantizers as make

NAME = "model.layers.0.mlp.experts.gate_up_proj"
CONFIG = {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"]}
WEIGHT = to_bfloat16((np.random.default_rng(0).standard_normal((2, 256, 256)) * 0.02).astype(np.float32))


@pytest.mark.parametrize("change", [0.002, 0.003, 0.01, 0.05])
def test_no_more_is_promised_than_happens(tmp_path: Path, change: float) -> None:
    weights = {NAME: WEIGHT, "model.embed_tokens.weight": np.ones((2, 8), dtype=np.float32)}
    parent = make.save(tmp_path / "parent", weights, CONFIG)
    moved = {NAME: to_bfloat16(others.changed(weights, change, which=others.EXPERTS)[NAME])}
    child = narrow.write_mxfp4(tmp_path / "child", weights | moved, CONFIG)
    found = measure(matrices(child)[NAME], matrices(parent)[NAME], lambda values: values)
    spread = math.sqrt(found.signal / found.weights)
    distance = float(np.linalg.norm(moved[NAME] - WEIGHT) / np.linalg.norm(WEIGHT))
    assert outside_of_change(distance * spread, found) < found.share
    # Without the steps that no border shows, it would promise too much; of large changes they hide little.
    found.tolerance = 0
    assert change > 0.01 or outside_of_change(distance * spread, found) > found.share


def block(scale: float) -> Block:
    codes = np.arange(16, dtype=np.uint8)[None].repeat(8, axis=0)
    return lookup(codes, E2M1, np.full((1, 1), scale, dtype=np.float32))


def test_only_weights_and_borders_of_one_type_hide_a_step() -> None:
    weights = np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)
    assert unseen_step(weights, block(0.25)) is None
    assert unseen_step(to_bfloat16(weights), block(0.37)) is None
    step = unseen_step(to_bfloat16(weights), block(0.25))
    assert step is not None
    # Between the levels 2 and 3 lies the border 2.5, times the scale; its neighbours in bfloat16 are 2 ** -8 away.
    assert step[0, 4] == 0.25 * 2.0**-6
    # The highest level has one border only.
    assert step[0, 7] == step[0, 6] == 0.25 * 2.0**-5
    half = unseen_step(to_float16(weights), block(0.25))
    assert half is not None and half[0, 4] == 0.25 * 2.0**-9

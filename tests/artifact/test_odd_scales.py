"""Scales that are rounded before they are stored, and what quantizers do to weights that no input reaches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix
from mlflow_quantgov.artifact.dequantize.numbers import NF4, uniform
from mlflow_quantgov.artifact.derivation.compensation import best_column
from mlflow_quantgov.artifact.derivation.judge import judge
from mlflow_quantgov.artifact.derivation.measure import measure

Array = np.ndarray[Any, Any]
ROWS, COLUMNS, BLOCK = 64, 256, 64


def judged(made: Matrix, parent: Array) -> tuple[str, str | None]:
    truth = Matrix("w", parent.shape, "F32", (), lambda start, stop: Block(parent[start:stop]))
    found = measure(made, truth, lambda values: values)
    layer, verdict = judge(made, found, best_column([found]))
    return verdict, layer.problem


def nearest(values: Array, table: Array) -> Array:
    return np.abs(values[..., None] - table).argmin(axis=-1)


def nested(weights: Array) -> dict[str, Array]:
    """NF4 with maxima of 8 bits, as bitsandbytes rounds and stores them."""
    blocks = weights.reshape(-1, BLOCK)
    maxima = np.abs(blocks).max(axis=1)
    codes = nearest(blocks / maxima[:, None], NF4).reshape(-1)
    table = np.linspace(-1, 1, 256, dtype=np.float32)
    offset = float(maxima.mean())
    whole = np.abs(maxima - offset).max()
    state = {"quant_type": "nf4", "blocksize": BLOCK, "shape": [ROWS, COLUMNS], "nested_blocksize": 256,
             "nested_offset": offset}  # fmt: skip
    stem = "model.layers.0.mlp.up_proj.weight"
    return {
        stem: (codes[::2] << 4 | codes[1::2]).astype(np.uint8).reshape(-1, 1),
        f"{stem}.absmax": nearest((maxima - offset) / whole, table).astype(np.uint8),
        f"{stem}.quant_map": NF4,
        f"{stem}.nested_absmax": np.array([whole], np.float32),
        f"{stem}.nested_quant_map": table,
        f"{stem}.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8).copy(),
    }


def test_small_rows_beside_large_ones_with_nested_maxima(model_folder: Callable[..., Path]) -> None:
    """The maxima of small blocks may be off by more than they are; that is no other parent."""
    random = np.random.default_rng(0)
    parent = random.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    parent[:8] *= np.float32(1e-3)
    folder = model_folder(
        nested(parent), {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    )
    made = matrices(folder)["model.layers.0.mlp.up_proj.weight"]
    assert judged(made, parent) == ("proved", None)
    changed = parent * (1 + np.float32(0.05) * random.standard_normal(parent.shape).astype(np.float32))
    assert judged(made, changed)[0] != "proved"


def rounded(parent: Array, scale: Array, kind: str = "quanto", codes: Array | None = None) -> Matrix:
    chosen = np.clip(np.rint(parent / scale), -128, 127) if codes is None else codes
    return Matrix(
        "w", parent.shape, kind, (), lambda start, stop: uniform(chosen[start:stop].astype(np.int16), scale[start:stop],
        np.float32(0), -128, 127), 8, None, 2.0**-20,
    )  # fmt: skip


def test_rows_of_next_to_nothing_do_not_hide_what_the_others_show() -> None:
    """Their cells are so narrow that sums of reciprocal widths held nothing but them."""
    parent = np.random.default_rng(1).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    parent[:3] *= np.float32(1e-20)
    scale = np.abs(parent).max(axis=1, keepdims=True) / np.float32(127)
    assert judged(rounded(parent, scale), parent) == ("proved", None)


def test_columns_that_gptq_emptied_are_no_other_model() -> None:
    """It does so where an input was zero on every text."""
    parent = np.random.default_rng(2).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    scale = np.abs(parent).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.clip(np.rint(parent / scale), -128, 127)
    codes[:, 40:60] = 0
    verdict, problem = judged(rounded(parent, scale, "gptq", codes), parent)
    assert verdict == "unproved" and problem is not None and "20 of its 256 columns hold nothing but zeros" in problem
    assert judged(rounded(parent, scale, "quanto", codes), parent)[0] == "refuted"
    assert judged(rounded(parent, scale, "gptq", codes), parent[::-1].copy())[0] == "refuted"

"""Damage in a few places, which sums over a whole matrix drown; and columns that are no witnesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize.interface import Block, unreadable
from mlflow_quantgov.artifact.derivation.folding import is_plain_product
from mlflow_quantgov.artifact.derivation.judge import best_column
from mlflow_quantgov.artifact.derivation.local import Local
from mlflow_quantgov.artifact.derivation.measure import Measured


def quantized(bits: float, group: int | None, shape: tuple[int, int]) -> Any:
    return replace(unreadable("w", shape, "int", (), bits, "made up"), group_size=group)


def seen(edit: Callable[[Any], None], bits: float = 4, group: int | None = 32) -> Local:
    weights = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    values = np.round(weights * 4) / 4
    edit(values)
    found = Local()
    found.add(quantized(bits, group, weights.shape), weights, Block(values))
    return found


def test_rounding_leaves_no_damage() -> None:
    for bits in (2, 3, 4, 8):
        assert seen(lambda values: None, bits).problem is None


def test_one_emptied_group_is_seen() -> None:
    def empty(values: Any) -> None:
        values[3, 32:64] = 1e-6

    assert "1 of 256 groups" in str(seen(empty).problem)


def test_one_negated_row_and_two_swapped_are_seen() -> None:
    def negate(values: Any) -> None:
        values[5] *= -1

    def swap(values: Any) -> None:
        values[[1, 2]] = values[[2, 1]]

    assert "1 of 64 rows" in str(seen(negate).problem)
    assert "2 of 64 rows" in str(seen(swap).problem)


def test_a_column_of_padding_is_no_witness() -> None:
    found = Measured(4, rows=1000)
    found.outside_of_column = np.array([0, 400, 390, 410])
    found.column_signal = np.array([0.0, 10.0, 10.0, 10.0])
    assert not best_column([found]).fits
    found.column_signal[0] = 10.0
    assert best_column([found]).fits


@pytest.mark.parametrize(
    ("consumer", "beside", "plain"),
    [
        ("mlp.down_proj", ["mlp.gate_proj", "mlp.up_proj"], True),
        ("mlp.down_proj", ["mlp.up_proj"], False),
        ("mlp.down_proj", ["mlp.gate_proj", "mlp.up_proj", "mlp.ffn_sub_norm"], False),
        ("self_attn.o_proj", ["self_attn.v_proj", "self_attn.q_norm", "self_attn.k_norm"], True),
        ("self_attn.o_proj", ["self_attn.v_proj", "self_attn.attn_sub_norm"], False),
    ],
)
def test_nothing_but_a_product_between(consumer: str, beside: list[str], plain: bool) -> None:
    names = [f"model.layers.0.{one}.weight" for one in [consumer, *beside]]
    assert is_plain_product(f"model.layers.0.{consumer}.weight", names) is plain

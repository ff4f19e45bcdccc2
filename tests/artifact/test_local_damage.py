"""Damage in a few places, which sums over a whole matrix drown; and columns that are no witnesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize.interface import Block, unreadable
from mlflow_quantgov.artifact.derivation.compensation import best_column
from mlflow_quantgov.artifact.derivation.folding import is_plain_product
from mlflow_quantgov.artifact.derivation.local import Local
from mlflow_quantgov.artifact.derivation.measure import Measured


def quantized(bits: float, group: int | None, shape: tuple[int, int]) -> Any:
    return replace(unreadable("w", shape, "int", (), bits, "made up"), group_size=group)


def seen(
    edit: Callable[[Any], None],
    bits: float = 4,
    group: int | None = 32,
    kind: str = "int",
    compensated: bool = False,
    half: Any = 0.125,
) -> str | None:
    """What is found of made-up weights after an edit, all of whose codes are the nearest to the parent's weights.

    Args:
        edit: Changes the values in place.
        bits: Of the type.
        group: Weights that share a scale.
        kind: The type.
        compensated: Whether that is claimed.
        half: Half a step, of all weights or of each.
    """
    weights = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    values = np.round(weights * 4) / 4
    edit(values)
    found, none = Local(), np.zeros_like(weights)
    child = replace(quantized(bits, group, weights.shape), kind=kind)
    cell = np.broadcast_to(np.asarray(half, dtype=np.float32), weights.shape)
    found.add(child, weights, Block(values, cell, cell), none > 0, none, none[:, 0])
    return found.problem(compensated=compensated)


def test_rounding_leaves_no_damage() -> None:
    for bits in (2, 3, 4, 8):
        assert seen(lambda values: None, bits) is None


def test_one_emptied_group_is_seen() -> None:
    def empty(values: Any) -> None:
        values[3, 32:64] = 1e-6

    assert "1 of 256 groups" in str(seen(empty))


def cut(rows: slice, groups: int) -> Callable[[Any], None]:
    def edit(values: Any) -> None:
        values[rows, : 32 * groups] = np.sign(values[rows, : 32 * groups]) * 0.01

    return edit


def test_scales_that_serve_the_one_weight_that_counts_are_few() -> None:
    """llama.cpp fits the scale of a block to the weight that an importance matrix counts, and cuts off the others."""
    assert seen(cut(slice(3, 4), 1), kind="IQ4_NL") is None
    assert "1 of 256 groups" in str(seen(cut(slice(3, 4), 1), kind="Q8_0"))
    assert "2 of 256 groups" in str(seen(cut(slice(3, 5), 1), kind="IQ4_NL"))
    assert "2 of 256 groups" in str(seen(cut(slice(3, 4), 2), kind="IQ4_NL"))


def test_an_estimated_scale_may_overflow_now_and_then() -> None:
    """nncf divides by next to nothing where a weight that counts has the code zero; then the whole group has it."""

    def empty(values: Any) -> None:
        values[3, :32] = 0

    half = np.full((64, 128), 0.125)
    half[3, :32] = 300
    assert seen(empty, kind="I4", half=half) is None
    assert "1 of 256 groups" in str(seen(empty, kind="I4"))
    assert "1 of 256 groups" in str(seen(empty, kind="gptq", half=half))
    half[4, :32] = 300

    def empty_two(values: Any) -> None:
        values[3:5, :32] = 0

    assert "2 of 256 groups" in str(seen(empty_two, kind="I4", half=half))


def test_one_row_may_be_blown_up_by_compensation() -> None:
    """Where one input is far larger than the others, GPTQ moves rows by many times what they held."""

    def blow(rows: slice) -> Callable[[Any], None]:
        def edit(values: Any) -> None:
            away = np.random.default_rng(1).standard_normal(values[rows].shape)
            values[rows] += 3 * away

        return edit

    assert seen(blow(slice(5, 6)), kind="gptq", compensated=True) is None
    assert "1 of 64 rows" in str(seen(blow(slice(5, 6)), kind="gptq"))
    assert "1 of 64 rows" in str(seen(blow(slice(5, 6)), kind="Q4_K"))
    assert "2 of 64 rows" in str(seen(blow(slice(5, 7)), kind="gptq", compensated=True))


@pytest.mark.parametrize("compensated", [True, False])
def test_one_negated_row_and_two_swapped_are_seen(compensated: bool) -> None:
    def negate(values: Any) -> None:
        values[5] *= -1

    def swap(values: Any) -> None:
        values[[1, 2]] = values[[2, 1]]

    assert "1 of 64 rows" in str(seen(negate, kind="gptq", compensated=compensated))
    assert "2 of 64 rows" in str(seen(swap, kind="gptq", compensated=compensated))


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

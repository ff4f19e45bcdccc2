"""Models that are not the parent's, made so that single tensors look as if they were."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.derivation import compare

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_floats as narrow
import descent_quantizers as make

HIDDEN, INNER, KEYS = 128, 192, 64
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
}  # fmt: skip
LAYER = "model.layers.0."
INPUT, AFTER, BEHIND = (f"{LAYER}{one}_layernorm.weight" for one in ("input", "post_attention", "post_feedforward"))
QKV = [f"{LAYER}self_attn.{one}_proj.weight" for one in "qkv"]
FEED = [f"{LAYER}mlp.{one}_proj.weight" for one in ("gate", "up")]
Weights = dict[str, Any]


def weights() -> Weights:
    """A block with grouped heads and an output matrix of its own."""
    random = np.random.default_rng(0)
    shapes = {
        "model.embed_tokens": (96, HIDDEN), "lm_head": (96, HIDDEN), f"{LAYER}self_attn.q_proj": (HIDDEN, HIDDEN),
        f"{LAYER}self_attn.k_proj": (KEYS, HIDDEN), f"{LAYER}self_attn.v_proj": (KEYS, HIDDEN),
        f"{LAYER}self_attn.o_proj": (HIDDEN, HIDDEN), f"{LAYER}mlp.gate_proj": (INNER, HIDDEN),
        f"{LAYER}mlp.up_proj": (INNER, HIDDEN), f"{LAYER}mlp.down_proj": (HIDDEN, INNER),
    }  # fmt: skip
    found: Weights = {
        f"{name}.weight": (random.standard_normal(shape) * 0.05).astype(np.float32) for name, shape in shapes.items()
    }
    for name in ("model.norm.weight", INPUT, AFTER):
        found[name] = (1 + 0.2 * random.standard_normal(HIDDEN)).astype(np.float32)
    return found


def verdict(folder: Path, parent: Weights, child: Weights, write: Callable[..., Path]) -> str:
    source = make.save(folder / "parent", parent, CONFIG | {"dtype": "float32"})
    return compare(write(folder / "child", child, CONFIG), source).verdict


def hqq(path: Path, one: Weights, config: dict[str, Any]) -> Path:
    return narrow.write_hqq(path, one, config, 4, 64)


def factors(count: int) -> Any:
    return np.random.default_rng(1).uniform(0.3, 3, count).astype(np.float32)


@pytest.mark.parametrize("write", [hqq, narrow.write_fp8_rows])
def test_value_rows_of_grouped_heads_may_not_be_scaled(tmp_path: Path, write: Callable[..., Path]) -> None:
    """Nothing takes it back: the output projection has twice as many columns."""
    child = weights()
    child[QKV[2]] = child[QKV[2]] * factors(KEYS)[:, None]
    assert verdict(tmp_path, weights(), child, write) == "refuted"


def test_an_output_matrix_of_its_own_may_not_be_left_out(tmp_path: Path) -> None:
    child = weights()
    del child["lm_head.weight"]
    assert verdict(tmp_path, weights(), child, hqq) == "refuted"


def test_an_output_matrix_that_repeats_the_embedding_may(tmp_path: Path) -> None:
    parent = weights()
    parent["lm_head.weight"] = parent["model.embed_tokens.weight"]
    child = dict(parent)
    del child["lm_head.weight"]
    assert verdict(tmp_path, parent, child, hqq) == "proved"


def folded(one: Weights, norm: str, behind: list[str]) -> Weights:
    """Scales moved out of a norm into some matrices."""
    moved, scale = dict(one), factors(HIDDEN)
    moved[norm] = one[norm] / scale
    return moved | {name: one[name] * scale for name in behind}


def test_a_norm_is_folded_into_whatever_reads_it(tmp_path: Path) -> None:
    parent = weights()
    assert verdict(tmp_path, parent, folded(parent, INPUT, QKV), hqq) == "proved"


def test_not_into_a_part_of_what_reads_it(tmp_path: Path) -> None:
    parent = weights()
    parent |= {name.replace("mlp.", "mlp.shared_expert."): parent[name][::-1].copy() for name in FEED}
    assert verdict(tmp_path, parent, folded(parent, AFTER, FEED), hqq) == "refuted"


def test_not_beside_a_reader_that_nobody_knows(tmp_path: Path) -> None:
    parent = weights()
    parent[f"{LAYER}router.weight"] = parent[QKV[0]][::-1].copy()
    assert verdict(tmp_path, parent, folded(parent, AFTER, FEED), hqq) == "refuted"


def test_not_where_attention_and_mlp_stand_side_by_side(tmp_path: Path) -> None:
    parent = weights()
    del parent[AFTER]
    assert verdict(tmp_path, parent, folded(parent, INPUT, QKV), hqq) == "refuted"


def test_not_out_of_a_norm_that_stands_behind_its_block(tmp_path: Path) -> None:
    parent = weights()
    parent[BEHIND] = parent.pop(INPUT)
    assert verdict(tmp_path, parent, folded(parent, AFTER, FEED), hqq) == "refuted"


def signs_alone(rows: Any, bits: int) -> tuple[Any, ...]:
    """Two levels about zero, far beyond every weight: the cells hold everything."""
    size = np.abs(rows).max(1, keepdims=True) * 2 * np.random.default_rng(0).uniform(1, 20, (len(rows), 1))
    return np.where(rows > 0, 8, 7).astype(np.uint8), size.astype(np.float32), np.full(size.shape, 7.5, np.float32)


def all_clipped(rows: Any, bits: int) -> tuple[Any, ...]:
    """Outermost levels so near to zero that most weights lie beyond them."""
    scale = np.abs(rows).mean(1, keepdims=True) * np.random.default_rng(0).uniform(0.002, 0.05, (len(rows), 1))
    codes = np.clip(np.rint(rows / scale + 8), 0, 15).astype(np.uint8)
    return codes, scale.astype(np.float32), np.full(scale.shape, 8, np.float32)


def half_zeroed(rows: Any, bits: int) -> tuple[Any, ...]:
    """Every other row with a scale so large that its cells hold everything, and zeros."""
    codes, scale, zero = all_clipped(rows, bits)
    scale = (np.abs(rows).max(1, keepdims=True) / 7).astype(np.float32)
    codes = np.clip(np.rint(rows / scale + 8), 0, 15).astype(np.uint8)
    codes[::2], scale[::2] = 8, 60000
    return codes, scale, zero


def some_erased(rows: Any, bits: int) -> tuple[Any, ...]:
    """One row in twenty with a scale next to nothing, whose outermost cells have no end."""
    codes, scale, zero = half_zeroed(rows, bits)
    scale = (np.abs(rows).max(1, keepdims=True) / 7).astype(np.float32)
    codes = np.clip(np.rint(rows / scale + 8), 0, 15).astype(np.uint8)
    codes[::20], scale[::20] = np.where(rows[::20] > 0, 15, 0), 2e-7
    return codes, scale, zero


@pytest.mark.parametrize("levels", [signs_alone, all_clipped, half_zeroed, some_erased])
def test_levels_to_which_nobody_rounds_prove_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: Callable[..., Any]
) -> None:
    monkeypatch.setattr(narrow, "solve_hqq", levels)
    assert verdict(tmp_path, weights(), weights(), hqq) == "unproved"

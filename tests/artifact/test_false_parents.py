"""Models that are not the parent's, made so that single tensors look as if they were."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix
from mlflow_quantgov.artifact.derivation import compare
from mlflow_quantgov.artifact.derivation.casts import AS_STORED, CASTS
from mlflow_quantgov.artifact.derivation.low_rank import explained
from mlflow_quantgov.artifact.derivation.measure import Factors

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_floats as narrow
import descent_quantizers as make

pytestmark = pytest.mark.slow  # layers large enough for the statistics

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
    config = CONFIG | {"intermediate_size": len(parent[FEED[0]])}
    source = make.save(folder / "parent", parent, config | {"dtype": "float32"})
    return compare(write(folder / "child", child, config), source).verdict


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


@pytest.mark.parametrize("taken_back", [True, False])
def test_scales_of_few_rows_are_undone_where_they_are_taken_back(tmp_path: Path, taken_back: bool) -> None:
    """nncf's AWQ scales the groups of the largest channels alone."""
    child, count = weights(), INNER // 12
    up, down = FEED[1], f"{LAYER}mlp.down_proj.weight"
    scale = np.ones(INNER, dtype=np.float32)
    scale[:count] = factors(count)
    child[up] = child[up] * scale[:, None]
    if taken_back:
        child[down] = child[down] / scale
    assert (verdict(tmp_path, weights(), child, hqq) == "proved") is taken_back


def test_not_into_a_part_of_what_reads_it(tmp_path: Path) -> None:
    parent = weights()
    parent |= {name.replace("mlp.", "mlp.shared_expert."): parent[name][::-1].copy() for name in FEED}
    assert verdict(tmp_path, parent, folded(parent, AFTER, FEED), hqq) == "refuted"


def test_not_beside_a_reader_that_nobody_knows(tmp_path: Path) -> None:
    parent = weights()
    parent[f"{LAYER}router.weight"] = parent[QKV[0]][::-1].copy()
    assert verdict(tmp_path, parent, folded(parent, AFTER, FEED), hqq) == "refuted"


@pytest.mark.parametrize(("moved", "expected"), [(0.0, "proved"), (0.05, "refuted")])
def test_a_row_of_a_router_may_not_move_with_it(tmp_path: Path, moved: float, expected: str) -> None:
    """Of the whole router it is less than two roundings to bfloat16; of one expert it decides."""
    random, router = np.random.default_rng(5), f"{LAYER}mlp.gate.weight"
    parent = {name: one for name, one in weights().items() if ".mlp." not in name}
    for name, one in weights().items():
        if ".mlp." in name:
            parent |= {
                name.replace("mlp.", f"mlp.experts.{expert}."): one[:, ::step] for expert, step in enumerate((1, -1))
            }
    parent[router] = (random.standard_normal((64, HIDDEN)) * 0.05).astype(np.float32)
    child = folded(parent, AFTER, [name for name in parent if ".mlp." in name and "down" not in name])
    child[router][3] += moved * np.linalg.norm(child[router][3]) / np.sqrt(HIDDEN)
    source = make.save(tmp_path / "parent", parent, CONFIG | {"dtype": "float32"})
    found = compare(hqq(tmp_path / "child", child, CONFIG), source)
    assert found.verdict == expected
    # What two roundings of the router may hide is stated.
    assert found.resolution is None or found.resolution >= 2.0**-7


def test_not_where_attention_and_mlp_stand_side_by_side(tmp_path: Path) -> None:
    parent = weights()
    del parent[AFTER]
    assert verdict(tmp_path, parent, folded(parent, INPUT, QKV), hqq) == "refuted"


def test_not_out_of_a_norm_that_stands_behind_its_block(tmp_path: Path) -> None:
    parent = weights()
    parent[BEHIND] = parent.pop(INPUT)
    assert verdict(tmp_path, parent, folded(parent, AFTER, FEED), hqq) == "refuted"


def tall() -> Weights:
    """Gate and up projections of so many rows that two of them are nothing among the rest."""
    random = np.random.default_rng(5)
    shapes = [(FEED[0], (4000, HIDDEN)), (FEED[1], (4000, HIDDEN)), (f"{LAYER}mlp.down_proj.weight", (HIDDEN, 4000))]
    return weights() | {name: (random.standard_normal(shape) * 0.05).astype(np.float32) for name, shape in shapes}


def blended(one: Weights, share: float) -> Weights:
    """Two rows nearer to each other: of an output matrix, one answer in the place of another."""
    rows = one[FEED[0]].copy()
    rows[[10, 20]] = (1 - share) * rows[[10, 20]] + share * rows[[20, 10]]
    return one | {FEED[0]: rows}


@pytest.mark.parametrize("share", [0.7, 0.3, 0.1])
def test_two_rows_of_thousands_may_not_be_others(tmp_path: Path, share: float) -> None:
    parent = tall()
    assert verdict(tmp_path, parent, blended(parent, share), hqq) == "unproved"


def test_nor_where_errors_are_compensated(tmp_path: Path) -> None:
    mixing = np.random.default_rng(3).standard_normal((INNER, INNER))
    parent = weights()
    hessians = {
        name: 0.7 * (each := mixing[: one.shape[-1]]) @ each.T / INNER + 0.3 * np.eye(len(each))
        for name, one in parent.items()
    }
    source = make.save(tmp_path / "parent", parent, CONFIG | {"dtype": "float32"})
    for share, said in ((0.0, None), (0.7, "2 of 192 rows")):
        child = make.write_gptq(tmp_path / f"{share}", blended(parent, share), CONFIG, 4, 64, hessians)
        layers = {one.name: one for one in compare(child, source).layers}
        problem, trace = layers[FEED[0]].problem, layers[FEED[1]].trace
        assert trace == "compensated" and (said in problem if said and problem else problem is said)


def test_one_column_of_thousands_may_not_be_scaled(tmp_path: Path) -> None:
    child = tall()
    child[f"{LAYER}mlp.down_proj.weight"][:, 7] *= 0.5
    assert verdict(tmp_path, tall(), child, hqq) == "unproved"


SOLVE = narrow.solve_hqq


def half_constant(rows: Any, bits: int) -> tuple[Any, ...]:
    """Every other group with cells that hold everything, and one number in place of its weights."""
    codes, scale, zero = SOLVE(rows, bits)
    spread = rows.std(1)[::2]
    codes, scale, zero = codes.copy(), scale.copy().reshape(-1, 1), zero.copy().reshape(-1, 1)
    codes[::2], scale[::2, 0], zero[::2, 0] = 8, 20 * spread, 8 - 0.4 / 20
    return codes, scale.astype(np.float32), zero.astype(np.float32)


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


def some_cut(rows: Any, bits: int) -> tuple[Any, ...]:
    """One row in twelve with levels that end at half the mean size of its weights."""
    scale = (np.abs(rows).max(1, keepdims=True) / 7).astype(np.float32)
    scale[::12] = np.abs(rows[::12]).mean(1, keepdims=True) / 15
    codes = np.clip(np.rint(rows / scale + 8), 0, 15).astype(np.uint8)
    return codes, scale, np.full(scale.shape, 8, np.float32)


@pytest.mark.parametrize("levels", [signs_alone, all_clipped, half_zeroed, some_erased, some_cut, half_constant])
def test_levels_to_which_nobody_rounds_prove_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: Callable[..., Any]
) -> None:
    monkeypatch.setattr(narrow, "solve_hqq", levels)
    assert verdict(tmp_path, weights(), weights(), hqq) == "unproved"


def gptq(path: Path, one: Weights, config: dict[str, Any], bits: int = 8) -> Path:
    return make.write_gptq(path, one, config, bits, 64)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("bits", "rank", "change"), [(8, 1, 0.01), (8, 2, 0.01), (4, 1, 0.1), (4, 1, 0.03), (4, 4, 0.1)]
)
def test_a_merged_lora_is_no_compensation(tmp_path: Path, bits: int, rank: int, change: float, stored: str) -> None:
    """One column in which its input vector is next to zero looks like the one that GPTQ began with."""
    parent, child = weights(), weights()
    random = np.random.default_rng(3)
    for name in (one for one in child if make.LINEAR.search(one)):
        before, after = (random.standard_normal((size, rank)) for size in child[name].shape)
        after[:16] *= 1e-3
        moved = before @ after.T
        moved *= change * np.linalg.norm(child[name]) / np.linalg.norm(moved)
        child[name] = (child[name] + moved).astype(np.float32)
        if stored == "bfloat16":
            child[name] = (make.bfloat16_bits(child[name]).astype(np.uint32) << 16).view(np.float32)
    source = make.save(tmp_path / "parent", parent, CONFIG | {"dtype": "float32"})
    found = compare(gptq(tmp_path / "child", child, CONFIG, bits), source)
    assert found.verdict == "unproved"
    assert "low rank" in found.reason


def test_compensation_behind_one_large_input_is_no_merged_lora() -> None:
    """Most of what GPTQ moves there has one direction, as in SmolLM2; what it leaves is still no rounding."""
    random = np.random.default_rng(0)
    rows = (random.standard_normal((256, 512)) * 0.05).astype(np.float32)
    usual, one = 0.1 * random.standard_normal((2048, 512)), np.zeros(512)
    one[170] = 1000
    one += 10 * random.standard_normal(512)
    inputs = np.concatenate([usual, np.tile(one, (64, 1))])
    codes, scales, zeros, index = make.gptq(rows, inputs.T @ inputs, 4, 64)
    values, half = make.dequantized(codes, scales, zeros, index), (scales[:, index] / 2).astype(np.float32)
    below, above = np.where(codes == 0, np.inf, half), np.where(codes == 15, np.inf, half)
    child = Matrix("m", rows.shape, "gptq", (), lambda a, b: Block(values[a:b], below[a:b], above[a:b]), 4, 64)
    parent = Matrix("m", rows.shape, "F32", (), lambda a, b: Block(rows[a:b]))
    share = np.abs(rows - values) > half * 1.01
    assert share.mean() > 0.03
    assert explained(child, parent, CASTS[AS_STORED], Factors()) is None


@pytest.mark.parametrize(("moves", "expected"), [(True, "proved"), (False, "refuted")])
def test_a_scale_leaves_the_bias_of_a_norm_too(tmp_path: Path, moves: bool, expected: str) -> None:
    parent = weights()
    bias = INPUT.replace("weight", "bias")
    parent[bias] = np.random.default_rng(2).standard_normal(HIDDEN).astype(np.float32)
    child = folded(parent, INPUT, QKV)
    if moves:
        child[bias] = parent[bias] / factors(HIDDEN)
    assert verdict(tmp_path, parent, child, hqq) == expected


def test_few_weights_that_refuse_are_counted_in_words(tmp_path: Path) -> None:
    parent, child = weights(), weights()
    name = FEED[0]
    child[name] = child[name].copy()
    large = np.argsort(-np.abs(child[name]).ravel())[:400:10]
    child[name].ravel()[large] *= -1
    source = make.save(tmp_path / "parent", parent, CONFIG | {"dtype": "float32"})
    found = compare(hqq(tmp_path / "child", child, CONFIG), source)
    assert found.verdict != "proved"
    assert "40 (40 by more than a step)" in found.reason

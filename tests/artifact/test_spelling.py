"""Quantized models whose tensors are the parent's under other names, cut apart, turned, or out of a stack."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_derivation import make, problems

from mlflow_quantgov.artifact.derivation import compare
from mlflow_quantgov.artifact.derivation.spelling import shapes_as_child_spells
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.lineage import ModelFacts, structure_problems

HIDDEN, INNER, EXPERTS = 64, 96, 2
Weights = dict[str, Any]
_QUANTIZED = re.compile(r"(_proj|c_attn|c_fc|w[123]|decoder|lm_head)\.weight$")


def numbers(*shape: int, seed: int) -> Any:
    return (0.05 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def gpt2(seed: int) -> tuple[Weights, Weights]:
    """Conv1D stores [in, out], the square output projection too; quantizers pack [out, in]."""
    stem = "transformer.h.0."
    turned = {f"{stem}attn.c_attn.weight": numbers(HIDDEN, 3 * HIDDEN, seed=seed),
              f"{stem}attn.c_proj.weight": numbers(HIDDEN, HIDDEN, seed=seed + 1),
              f"{stem}mlp.c_fc.weight": numbers(HIDDEN, INNER, seed=seed + 2),
              f"{stem}mlp.c_proj.weight": numbers(INNER, HIDDEN, seed=seed + 3)}  # fmt: skip
    rest = {"transformer.wte.weight": numbers(32, HIDDEN, seed=9), f"{stem}attn.c_attn.bias": numbers(192, seed=10)}
    return rest | turned, rest | {name: np.ascontiguousarray(one.T) for name, one in turned.items()}


def fused(seed: int) -> tuple[Weights, Weights]:
    """Phi-3's projections, quantized apart; biases are cut with them."""
    gate_up, qkv = numbers(2 * INNER, HIDDEN, seed=seed), numbers(HIDDEN + 64, HIDDEN, seed=seed + 1)
    bias, stem = numbers(HIDDEN + 64, seed=seed + 2), "model.layers.0."
    rows = {"q": slice(0, HIDDEN), "k": slice(HIDDEN, HIDDEN + 32), "v": slice(HIDDEN + 32, None)}
    parent = {f"{stem}mlp.gate_up_proj.weight": gate_up, f"{stem}self_attn.qkv_proj.weight": qkv,
              f"{stem}self_attn.qkv_proj.bias": bias}  # fmt: skip
    child = {f"{stem}mlp.gate_proj.weight": gate_up[:INNER], f"{stem}mlp.up_proj.weight": gate_up[INNER:]}
    child |= {f"{stem}self_attn.{one}_proj.weight": qkv[part] for one, part in rows.items()}
    return parent, child | {f"{stem}self_attn.{one}_proj.bias": bias[part] for one, part in rows.items()}


def mixtral(seed: int) -> tuple[Weights, Weights]:
    """Experts by their older names in the parent."""
    parent, child = {}, {}
    for expert in range(EXPERTS):
        for place, (old, new) in enumerate((("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj"))):
            shape = (HIDDEN, INNER) if old == "w2" else (INNER, HIDDEN)
            one = numbers(*shape, seed=seed + 3 * expert + place)
            parent[f"model.layers.0.block_sparse_moe.experts.{expert}.{old}.weight"] = one
            child[f"model.layers.0.mlp.experts.{expert}.{new}.weight"] = one
    gate = numbers(EXPERTS, HIDDEN, seed=50)
    parent["model.layers.0.block_sparse_moe.gate.weight"] = child["model.layers.0.mlp.gate.weight"] = gate
    return parent, child


def stacked(seed: int, *, in_turns: bool = True) -> tuple[Weights, Weights]:
    """gpt-oss' stacks [experts, in, out] with gate and up in turns and biases; Llama 4's, one after the other, without."""
    stem = "model.layers.0.mlp.experts."
    both, down = numbers(EXPERTS, HIDDEN, 2 * INNER, seed=seed), numbers(EXPERTS, INNER, HIDDEN, seed=seed + 1)
    parent = {f"{stem}gate_up_proj": both, f"{stem}down_proj": down}
    gate, up = (slice(0, None, 2), slice(1, None, 2)) if in_turns else (slice(0, INNER), slice(INNER, None))
    biases = {"gate_up_proj": numbers(EXPERTS, 2 * INNER, seed=7), "down_proj": numbers(EXPERTS, HIDDEN, seed=8)}
    if in_turns:
        parent |= {f"{stem}{name}_bias": one for name, one in biases.items()}
    child = {}
    for expert in range(EXPERTS):
        child |= {f"{stem}{expert}.gate_proj.weight": both[expert][:, gate].T,
                  f"{stem}{expert}.up_proj.weight": both[expert][:, up].T,
                  f"{stem}{expert}.down_proj.weight": down[expert].T}  # fmt: skip
        if in_turns:
            child |= {f"{stem}{expert}.gate_proj.bias": biases["gate_up_proj"][expert][gate],
                      f"{stem}{expert}.up_proj.bias": biases["gate_up_proj"][expert][up],
                      f"{stem}{expert}.down_proj.bias": biases["down_proj"][expert]}  # fmt: skip
    return parent, {name: np.ascontiguousarray(one) for name, one in child.items()}


def tied(seed: int) -> tuple[Weights, Weights]:
    """An output matrix that the parent shares with its embedding, stored and quantized apart."""
    table, stem = numbers(64, HIDDEN, seed=seed), "bert.embeddings.word_embeddings.weight"
    bias = numbers(64, seed=3)
    parent = {stem: table, "cls.predictions.bias": bias}
    return parent, parent | {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": bias}


MODELS: dict[str, Callable[[int], tuple[Weights, Weights]]] = {
    "gpt2": gpt2, "fused": fused, "mixtral": mixtral, "gpt-oss": stacked, "tied": tied,
    "llama4": lambda seed: stacked(seed, in_turns=False),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quantize_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "LINEAR", _QUANTIZED)


@pytest.mark.parametrize("name", MODELS)
def test_a_parent_that_is_written_otherwise_is_proved(tmp_path: Path, name: str) -> None:
    parent, child = MODELS[name](100)
    folder = make.save(tmp_path / "parent", parent, {})
    quantized = make.write_gptq(tmp_path / "child", child, {}, 4, 32)
    found = compare(quantized, folder)
    assert (found.verdict, problems(found)) == ("proved", {})
    assert {one.name for one in found.layers if one.bits} == {one for one in child if _QUANTIZED.search(one)}
    assert structure_problems(inspect(quantized).structure, _facts(folder)) == ()


@pytest.mark.parametrize("name", MODELS)
def test_another_model_that_is_written_so_is_refuted(tmp_path: Path, name: str) -> None:
    folder = make.save(tmp_path / "parent", MODELS[name](200)[0], {})
    quantized = make.write_gptq(tmp_path / "child", MODELS[name](100)[1], {}, 4, 32)
    found = compare(quantized, folder)
    assert found.verdict == "refuted"
    wrong = {one for one in MODELS[name](100)[1] if _QUANTIZED.search(one)}
    assert wrong <= problems(found).keys()


@pytest.mark.parametrize("name", ["gpt2", "fused", "mixtral", "gpt-oss"])
def test_a_parent_of_another_shape_is_not_cut_to_fit(tmp_path: Path, name: str) -> None:
    parent, child = MODELS[name](100)
    largest = max(parent, key=lambda one: parent[one].size)
    parent[largest] = np.ascontiguousarray(parent[largest][..., :-32])
    folder = make.save(tmp_path / "parent", parent, {})
    quantized = make.write_gptq(tmp_path / "child", child, {}, 4, 32)
    assert compare(quantized, folder).verdict == "refuted"
    assert structure_problems(inspect(quantized).structure, _facts(folder))


def test_an_expert_that_is_missing_is_missed(tmp_path: Path) -> None:
    parent, child = stacked(100)
    del child["model.layers.0.mlp.experts.1.up_proj.weight"]
    found = compare(make.write_gptq(tmp_path / "child", child, {}, 4, 32), make.save(tmp_path / "parent", parent, {}))
    assert (found.verdict, found.reason) == (
        "refuted", "The tensor model.layers.0.mlp.experts.gate_up_proj of the parent is missing (1 such).",
    )  # fmt: skip


def test_linear_layers_of_the_same_names_are_not_turned(tmp_path: Path) -> None:
    """StarCoder's are called as GPT-2's, and stored as linear layers."""
    _, child = gpt2(100)
    quantized = make.write_gptq(tmp_path / "child", child, {}, 4, 32)
    assert compare(quantized, make.save(tmp_path / "parent", child, {})).verdict == "proved"
    square = "transformer.h.0.attn.c_proj.weight"
    wrong = child | {square: np.ascontiguousarray(child[square].T)}
    found = compare(quantized, make.save(tmp_path / "wrong", wrong, {}))
    assert (found.verdict, set(problems(found))) == ("refuted", {square})


def test_a_matrix_that_a_tool_left_out_is_not_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = gpt2(100)
    square, wide = "transformer.h.0.attn.c_proj.weight", "transformer.h.0.mlp.c_fc.weight"
    kept = child | {square: parent[square], wide: parent[wide]}
    monkeypatch.setattr(make, "LINEAR", re.compile(r"(c_attn|mlp\.c_proj)\.weight$"))
    folder = make.write_gptq(tmp_path / "mixed", kept, {}, 4, 32)
    halves = {name: one.astype(np.float16).astype(np.float32) for name, one in parent.items()}
    found = compare(folder, make.save(tmp_path / "parent", halves, {}))
    assert problems(found) == {}


def write_gguf(path: Path, architecture: str, tensors: Weights, kind: str) -> Path:
    """A GGUF file by gguf's own writer and quantizer; vectors stay float32."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    for name, one in tensors.items():
        stored = gguf.GGMLQuantizationType[kind if one.ndim > 1 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(one, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0"])
def test_gpt2_as_gguf_has_its_names_and_its_matrices_turned(tmp_path: Path, kind: str) -> None:
    parent, child = gpt2(100)
    names = {"transformer.wte": "token_embd", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up",
             "mlp.c_proj": "ffn_down", "transformer.h.0": "blk.0"}  # fmt: skip
    tensors = {}
    for name, one in child.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        tensors[name] = one
    path = write_gguf(tmp_path / "x.gguf", "gpt2", tensors, kind)
    folder = make.save(tmp_path / "parent", parent, {})
    found = compare(path, folder)
    assert (found.verdict, problems(found)) == ("proved", {})
    assert structure_problems(inspect(path).structure, _facts(folder)) == ()
    assert compare(path, make.save(tmp_path / "other", gpt2(200)[0], {})).verdict == "refuted"


@pytest.mark.parametrize(("steps", "verdict"), [(0.0, "proved"), (0.05, "unproved"), (3.0, "refuted")])
def test_what_differs_by_less_than_rounding_is_not_called_another_model(
    tmp_path: Path, steps: float, verdict: str
) -> None:
    """AutoRound's Q6_K and Q8_0 choose other codes than the nearest for a few weights in a thousand."""
    tensors = {"token_embd.weight": numbers(256, HIDDEN, seed=1)}
    path = write_gguf(tmp_path / "x.gguf", "gpt2", tensors, "Q8_0")
    # A step is about a 127th of the largest of 32 weights.
    changed = tensors["token_embd.weight"] + numbers(256, HIDDEN, seed=2) * np.float32(steps * 2.5 / 127)
    found = compare(path, make.save(tmp_path / "parent", {"transformer.wte.weight": changed}, {}))
    assert found.verdict == verdict


def test_gguf_of_an_architecture_whose_names_are_not_mapped_is_compared_by_shape(tmp_path: Path) -> None:
    tensors = {"token_embd.weight": numbers(32, HIDDEN, seed=1), "blk.0.ffn_up.weight": numbers(INNER, HIDDEN, seed=2)}
    path = write_gguf(tmp_path / "x.gguf", "bloom", tensors, "Q8_0")
    theirs = {"transformer.word_embeddings.weight": tensors["token_embd.weight"],
              "transformer.h.0.mlp.dense_h_to_4h.weight": tensors["blk.0.ffn_up.weight"]}  # fmt: skip
    folder = make.save(tmp_path / "parent", theirs, {})
    assert structure_problems(inspect(path).structure, _facts(folder)) == ()
    found = compare(path, folder)
    assert (found.verdict, found.holds) == ("unproved", False)
    assert "is not known here" in found.reason
    wider = make.save(tmp_path / "wider", theirs | {"transformer.x.weight": numbers(3, HIDDEN, seed=3)}, {})
    assert structure_problems(inspect(path).structure, _facts(wider))


def test_symmetric_awq_clips_below_as_above(tmp_path: Path) -> None:
    """gptqmodel's symmetric AWQ: what lies below the lowest level in use was clipped to it, as what lies above."""
    name = "model.layers.0.mlp.up_proj.weight"
    weight = numbers(INNER, HIDDEN, seed=5)
    groups = weight.reshape(INNER, -1, 32)
    scales = (0.7 * np.abs(groups).max(2) / 7).astype(np.float16).astype(np.float32)
    codes = (np.clip(np.rint(groups / scales[:, :, None]), -7, 7) + 8).reshape(weight.shape).astype(np.uint32)
    rest = {"model.embed_tokens.weight": numbers(32, HIDDEN, seed=6)}
    stem = name.removesuffix("weight")
    tensors = rest | {
        f"{stem}qweight": make.pack_words(make._interleaved(codes.T), 4, 1),
        f"{stem}qzeros": np.full((2, INNER // 8), 0x88888888, dtype=np.uint32).view(np.int32),
        f"{stem}scales": np.ascontiguousarray(scales.T.astype(np.float16)),
    }
    claim = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}}
    child = make.save(tmp_path / "child", tensors, claim)
    found = compare(child, make.save(tmp_path / "parent", rest | {name: weight}, {}))
    assert (found.verdict, problems(found)) == ("proved", {})
    other = make.save(tmp_path / "other", rest | {name: numbers(INNER, HIDDEN, seed=7)}, {})
    assert compare(child, other).verdict == "refuted"


def test_experts_behind_one_norm_see_inputs_of_their_own(tmp_path: Path) -> None:
    """GPTQ begins with another column in each of them."""
    stem = "model.layers.0."
    parent = {f"{stem}post_attention_layernorm.weight": 1 + numbers(HIDDEN, seed=1)}
    hessians = {}
    for expert in range(4):
        name = f"{stem}mlp.experts.{expert}.gate_proj.weight"
        parent[name] = numbers(512, HIDDEN, seed=expert + 10)
        tokens = np.random.default_rng(expert).standard_normal((256, 8)) @ numbers(8, HIDDEN, seed=expert + 20)
        tokens += 0.05 * np.random.default_rng(expert + 30).standard_normal((256, HIDDEN))
        tokens *= np.roll(np.geomspace(4, 0.2, HIDDEN), 16 * expert)
        hessians[name] = tokens.T @ tokens + 0.01 * np.eye(HIDDEN)
    child = make.write_gptq(tmp_path / "child", parent, {}, 4, 32, hessians, act_order=True)
    found = compare(child, make.save(tmp_path / "parent", parent, {}))
    assert (found.verdict, problems(found)) == ("proved", {})
    assert {one.trace for one in found.layers if one.bits} == {"compensated"}


NAMES = st.sampled_from([
    "model.layers.0.mlp.gate_up_proj.weight", "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.gate_up_proj_bias", "lm_head.weight",
    "model.layers.0.mlp.experts.0.gate_proj.weight", "model.layers.0.mlp.experts.0.up_proj.bias",
    "model.layers.0.block_sparse_moe.experts.0.w1.weight", "transformer.h.0.attn.c_attn.weight", "transformer.wte.weight",
    "model.layers.0.mlp.experts.999999999999.down_proj.weight", "model.layers.0.mlp.experts.down_proj",
])  # fmt: skip
SHAPES = st.lists(st.integers(0, 6), max_size=4).map(tuple)


@settings(max_examples=200)
@example(
    {"model.layers.0.mlp.experts.0.up_proj.bias": ()}, {"model.layers.0.mlp.experts.gate_up_proj_bias": (1, 2)}
)  # a bias without a dimension
@given(st.dictionaries(NAMES, SHAPES), st.dictionaries(NAMES, SHAPES))
def test_any_shapes_are_compared_without_a_fault(child: Any, parent: Any) -> None:
    found = shapes_as_child_spells(child, parent)
    # Nothing gets lost on the way: a matrix of the parent is there whole, or in parts that are the child's.
    assert found.keys() - parent.keys() <= child.keys()
    gone = sum(math.prod(shape) for name, shape in parent.items() if name not in found)
    assert sum(math.prod(shape) for name, shape in found.items() if name not in parent) >= gone


def _facts(folder: Path) -> ModelFacts:
    found, manifest = inspect(folder), build_manifest(folder)
    return ModelFacts(manifest.weights_digest, manifest.digest, "", found.quantization, found.structure)

"""Settings of real tools that were once read wrong, each in a few tensors that need no tool."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_more_formats import ARTIFACTS, entries_of, write_raw
from test_more_settings import claim_of, copied

from mlflow_quantgov.artifact.dequantize import Block, Matrix
from mlflow_quantgov.artifact.derivation import compare
from mlflow_quantgov.artifact.derivation.graph_tensors import align
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.errors import ArtifactError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_quantizers as make

PARENT = ARTIFACTS / "parent-bf16"
Writer = Callable[..., Path]


def gptq(rows: int, columns: int, group: int, order: Any = None) -> dict[str, np.ndarray]:
    """A 4-bit matrix of GPTQ's layout, symmetric, in groups of that many columns."""
    groups = -(-columns // group)
    index = np.arange(columns) // group
    return {
        "qweight": np.zeros((columns // 8, rows), np.int32),
        "qzeros": np.full((groups, rows // 8), 0x77777777, np.int32),
        "scales": np.ones((groups, rows), np.float16),
        "g_idx": (index if order is None else index[order]).astype(np.int32),
    }


def under(name: str, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}.{part}": one for part, one in parts.items()}


@pytest.mark.parametrize(("claimed", "group"), [(64, 64), (-1, None)])
def test_a_group_as_long_as_the_row_is_a_group_where_the_config_says_so(
    model_folder: Writer, claimed: int, group: int | None
) -> None:
    """Of most matrices of a small model with groups of its width, rows have one scale each."""
    tensors = under("a", gptq(64, 64, 64)) | under("b", gptq(64, 64, 64)) | {"norm.weight": np.ones(64, np.float16)}
    said = {"quant_method": "gptq", "bits": 4, "group_size": claimed, "sym": True}
    facts = inspect(model_folder(tensors, {"quantization_config": said})).quantization
    assert (facts.group_size, facts.granularity) == (group, "group" if group else "channel")
    assert [layer.group_size for layer in facts.layers] == [group, group]


@pytest.mark.parametrize("said", [True, False])
def test_with_one_group_per_row_the_config_alone_knows_the_order(model_folder: Writer, said: bool) -> None:
    tensors = under("a", gptq(64, 64, 64)) | {"norm.weight": np.ones(64, np.float16)}
    claim = {"quant_method": "gptq", "bits": 4, "group_size": -1, "sym": True, "desc_act": said}
    assert inspect(model_folder(tensors, {"quantization_config": claim})).quantization.desc_act is said


def test_a_rule_of_gptqmodel_may_reorder_the_columns_of_one_layer(model_folder: Writer) -> None:
    order = np.random.default_rng(0).permutation(64)
    tensors = under("a", gptq(64, 64, 32)) | under("b.v_proj", gptq(64, 64, 32, order))
    tensors["norm.weight"] = np.ones(64, np.float16)
    claim = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
    rules = {"dynamic": {r".*\.v_proj": {"desc_act": True}}}
    facts = inspect(model_folder(tensors, {"quantization_config": claim | rules})).quantization
    assert facts.desc_act is True
    elsewhere = {"dynamic": {r".*\.q_proj": {"desc_act": True}}}
    for name, more in (("denied", {}), ("elsewhere", elsewhere)):
        with pytest.raises(ArtifactError, match=r"desc_act false.*b\.v_proj"):
            inspect(model_folder(tensors, {"quantization_config": claim | more}, name))


def test_zero_points_of_attention_belong_to_no_parent(tmp_path: Path) -> None:
    """llm-compressor writes them in float8 beside the scales of quantized attention."""
    folder = copied(tmp_path, "ct-fp8-tensor")
    file = folder / "model.safetensors"
    zeros = {f"model.layers.0.self_attn.{one}_zero_point": ("F8_E4M3", [1], b"\0") for one in "qkv"}
    scales = {f"model.layers.0.self_attn.{one}_scale": ("BF16", [1], b"\x80\x3f") for one in "qkv"}
    write_raw(file, entries_of(file) | zeros | scales)
    claim_of(folder, kv_cache_scheme={"num_bits": 8, "type": "float"})
    assert inspect(folder).quantization.kv_cache_bits == 8
    found = compare(folder, PARENT)
    assert (found.verdict, [one.problem for one in found.layers if one.problem]) == ("proved", [])


@pytest.mark.parametrize(("biased", "wanted"), [(True, "proved"), (False, "unproved")])
def test_a_norm_that_centres_lets_gptq_move_weights_along_one_direction(
    tmp_path: Path, biased: bool, wanted: str
) -> None:
    """llm-compressor's GPTQ of OPT, GPT-NeoX and StableLM: one direction of the difference is large, and nobody's LoRA."""
    random = np.random.default_rng(0)
    size, name = 128, "model.layers.0.self_attn.q_proj.weight"
    norm = (1 + random.standard_normal(size) / 10).astype(np.float32)
    inputs = random.standard_normal((2048, size))
    inputs = (inputs - inputs.mean(1, keepdims=True)) * norm + random.standard_normal(size) / 50
    parent = {
        name: (random.standard_normal((size, size)) / 20).astype(np.float32),
        "model.layers.0.input_layernorm.weight": norm,
        "model.embed_tokens.weight": random.standard_normal((size, size)).astype(np.float32),
    }
    if biased:
        parent["model.layers.0.input_layernorm.bias"] = np.zeros(size, np.float32)
    config = {"model_type": "stablelm", "architectures": ["StableLmForCausalLM"], "hidden_size": size}
    source = make.save(tmp_path / "parent", parent, config | {"dtype": "float32"})
    hessians = {name: inputs.T @ inputs + np.eye(size) * 0.01}
    child = make.write_gptq(tmp_path / "child", parent, config, 4, size, hessians)
    assert compare(child, source).verdict == wanted


def test_a_single_number_that_static_quantization_rounds_is_no_traceback(tmp_path: Path, onnx: Any) -> None:
    """onnxruntime's static quantization of everything rounds the constants of attention too, which have no sides."""
    zero, one = np.zeros((), np.uint8), np.ones((), np.float32)
    nodes = [
        onnx.node("DequantizeLinear", ["codes", "step", "middle"], ["w"]),
        onnx.node("MatMul", ["x", "w"], ["y"], "/model/layers.0/self_attn/q_proj/MatMul"),
        onnx.node("QuantizeLinear", ["number", "step", "zero"], ["rounded"]),
        onnx.node("DequantizeLinear", ["rounded", "step", "zero"], ["back"]),
        onnx.node("Mul", ["y", "back"], ["z"], "/model/layers.0/self_attn/Mul"),
    ]
    codes = np.random.default_rng(0).integers(-127, 127, (64, 64)).astype(np.int8)
    tensors = {"codes": codes, "step": one, "middle": np.zeros((), np.int8), "zero": zero, "number": one / 8}
    stored = [onnx.tensor(name, np.asarray(array)) for name, array in tensors.items()]
    (tmp_path / "model.onnx").write_bytes(onnx.model(nodes, stored))
    assert inspect(tmp_path).quantization.bits == 8
    assert compare(tmp_path, PARENT).verdict == "refuted"


def stored(name: str, one: Any, claim: str | None) -> Matrix:
    def read(start: int, stop: int) -> Block:
        return Block(one.reshape(-1, one.shape[-1])[start:stop])

    return Matrix(name, one.shape, "F32", (name,), read, claim=claim)


def test_a_graph_that_was_traced_inside_another_module_names_what_the_parent_names() -> None:
    """Without its names, Gemma's norms, which the graph holds plus one, were none of the parent's."""
    random = np.random.default_rng(0)
    names = [f"model.layers.0.{one}_layernorm.weight" for one in ("input", "pre_feedforward")]
    norms = {name: (0.3 * random.standard_normal(8)).astype(np.float32) for name in names}
    parent = {name: stored(name, one, None) for name, one in norms.items()}
    child = {name: stored(name, one + np.float32(1), f"model.{name}") for name, one in norms.items()}
    found = align(child, parent)
    assert set(found.child) == set(norms) and not found.strange
    assert {one.kind for one in found.child.values()} == {"F32 plus one"}


def test_the_output_matrix_of_gpt_neox_is_its_own() -> None:
    random = np.random.default_rng(0)
    tables = {
        f"{one}.weight": random.standard_normal((8, 4)).astype(np.float32) for one in ("gpt_neox.embed_in", "embed_out")
    }
    parent = {name: stored(name, one, None) for name, one in tables.items()}
    claims = {"gpt_neox.embed_in.weight": "gpt_neox.embed_in.weight", "embed_out.weight": "lm_head.weight"}
    child = {claims[name]: stored(claims[name], one, claims[name]) for name, one in tables.items()}
    found = align(child, parent)
    assert set(found.child) == set(tables) and not found.foreign


def test_a_block_of_a_graph_that_is_as_long_as_the_row_is_a_block(tmp_path: Path, onnx: Any) -> None:
    node = onnx.node("MatMulNBits", ["x", "w", "s"], ["y"], "", "com.microsoft", K=64, N=8, bits=4, block_size=64)
    stored_here = [onnx.tensor("w", np.zeros((8, 1, 32), np.uint8)), onnx.tensor("s", np.ones(8, np.float32))]
    (tmp_path / "model.onnx").write_bytes(onnx.model([node], stored_here))
    facts = inspect(tmp_path).quantization
    assert (facts.bits, facts.group_size, facts.granularity) == (4, 64, "group")


def test_scales_of_nvfp4_in_a_graph_are_no_matrices() -> None:
    """nncf stores them in float8 with a scale of their own."""
    facts = inspect(ARTIFACTS / "openvino-nvfp4").quantization
    assert (facts.bits, facts.group_size, facts.granularity) == (4, 16, "group")
    assert (len(facts.layers), facts.total_parameters, facts.warnings) == (9, 47104, ())
    assert compare(ARTIFACTS / "openvino-nvfp4", PARENT).verdict == "unproved"


def test_gptqmodels_float8_stores_what_weights_were_multiplied_with(tmp_path: Path) -> None:
    folder = copied(tmp_path, "fp8-block")
    entries = entries_of(folder / "model.safetensors")
    for name, (kind, shape, data) in entries.items():
        if name.endswith("_scale_inv"):
            assert kind == "F32"
            entries[name] = (kind, shape, (1 / np.frombuffer(data, np.float32)).astype(np.float32).tobytes())
    write_raw(folder / "model.safetensors", entries)
    assert compare(folder, PARENT).verdict == "refuted"
    claim_of(folder, weight_scale_semantics="inverse", meta={"quantizer": ["gptqmodel:7.6.0"]})
    assert compare(folder, PARENT).verdict == "proved"
    assert inspect(folder).quantization.producer == "gptqmodel 7.6.0"


def test_what_auto_round_exports_to_compressed_tensors_names_it(tmp_path: Path) -> None:
    folder = copied(tmp_path, "ct-w4g32")
    claim_of(folder, version=None, provider="auto-round")
    assert inspect(folder).quantization.producer == "auto-round"

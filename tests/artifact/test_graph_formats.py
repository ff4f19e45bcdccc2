"""What ONNX and OpenVINO graphs of real tools are, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.manifest import build_manifest, copy_with_manifest
from mlflow_quantgov.artifact.quantization import Inspection, Quantization
from mlflow_quantgov.artifact.tensors import read_onnx
from mlflow_quantgov.errors import ArtifactError, UnknownFormatError
from mlflow_quantgov.flavor.prepare import prepare
from mlflow_quantgov.lineage import ModelFacts, structure_problems

LINEAR, OUTER = 30720, 128 * 64
PRODUCT = "model.layers.0.mlp.up_proj"
EXPECTED: dict[str, dict[str, Any]] = {
    "onnx-f16": {"bits": None, "dtype": "float16", "quantized_parameters": 0, "calibration_required": False},
    "onnx-int8-dynamic": {
        "bits": 8, "granularity": "tensor", "symmetric": True, "activation_bits": 8, "calibration_required": False,
        "quantized_parameters": LINEAR + 2 * OUTER, "producer": "onnx.quantize 0.1.0", "desc_act": None,
    },
    "onnx-int8-qdq": {
        "bits": 8, "granularity": "channel", "symmetric": True, "activation_bits": 8, "calibration_required": True,
        "quantized_parameters": LINEAR + 2 * OUTER,
    },
    "onnx-int8-qoperator": {
        "bits": 8, "granularity": "tensor", "symmetric": True, "activation_bits": 8, "calibration_required": True,
        "quantized_parameters": LINEAR + 2 * OUTER,
    },
    "onnx-int4-nbits": {
        "bits": 4, "granularity": "group", "group_size": 32, "symmetric": False, "activation_bits": None,
        "calibration_required": None, "quantized_parameters": LINEAR + 2 * OUTER, "desc_act": False,
    },
    "onnx-int4-qdq": {
        "bits": 4, "granularity": "group", "group_size": 32, "symmetric": True, "activation_bits": None,
        "calibration_required": None, "quantized_parameters": LINEAR + OUTER, "dtype": "float32",
    },
    "onnx-genai-int4": {
        "bits": 4, "granularity": "group", "group_size": 32, "symmetric": True, "activation_bits": None,
        "calibration_required": None, "quantized_parameters": LINEAR + OUTER, "total_parameters": 47296,
        "producer": "onnxruntime-genai 0.18.0+00d66ef",
    },
    "openvino-int4-asym": {
        "bits": 4, "granularity": "group", "group_size": 32, "symmetric": False, "activation_bits": None,
        "calibration_required": False, "quantized_parameters": LINEAR + 2 * OUTER, "producer": "nncf 3.4.0",
    },
    "openvino-nf4": {
        "bits": 4, "granularity": "group", "group_size": 32, "symmetric": None, "activation_bits": None,
        "calibration_required": False, "quantized_parameters": LINEAR + 2 * OUTER,
    },
    "openvino-int8-static": {
        "bits": 8, "granularity": "channel", "symmetric": True, "activation_bits": 8, "calibration_required": True,
        "quantized_parameters": LINEAR + 2 * OUTER,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_facts_of_a_graph(artifacts: Path, name: str) -> None:
    found = inspect(artifacts / name)
    facts = found.quantization
    assert {key: getattr(facts, key) for key in EXPECTED[name]} == EXPECTED[name]
    assert (facts.format, facts.method, found.is_language_model) == (name.partition("-")[0], None, True)
    assert facts.size_bytes == sum(path.stat().st_size for path in (artifacts / name).iterdir())
    assert 47104 <= facts.total_parameters <= 47500
    assert Quantization.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


@pytest.mark.parametrize(
    ("name", "width"),
    # 47,104 codes with scales of 16 or 32 bit per group, and zero points of 4 bit.
    [("onnx-int4-nbits", 4 + 32 / 32 + 4 / 32), ("openvino-int4-asym", 4 + 16 / 32 + 4 / 32), ("openvino-nf4", 4 + 16 / 32)],
)  # fmt: skip
def test_bits_per_weight(artifacts: Path, name: str, width: float) -> None:
    found = inspect(artifacts / name).quantization.bits_per_weight
    assert width < found < width + 0.1


def test_layers_have_the_names_and_shapes_of_the_parent(artifacts: Path) -> None:
    for name in EXPECTED:
        for layer in inspect(artifacts / name).quantization.layers:
            if layer.name == PRODUCT:
                assert layer.shape == (96, 64)
    assert {one.type for one in inspect(artifacts / "openvino-nf4").quantization.layers} == {"nf4"}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_graph_fits_its_parent_and_no_other(artifacts: Path, name: str) -> None:
    child = inspect(artifacts / name).structure
    parent = inspect(artifacts / "parent-bf16")
    assert structure_problems(child, _facts(parent)) == ()
    for changed in (PRODUCT, "model.layers.0.self_attn.v_proj", "model.embed_tokens"):
        other = {**parent.structure.tensors, f"{changed}.weight": (96, 32)}
        assert structure_problems(child, _facts(parent, other))
    deeper = {**parent.structure.tensors, "model.layers.1.mlp.up_proj.weight": (96, 64)}
    assert structure_problems(child, _facts(parent, deeper))


def test_matrices_without_names_are_compared_by_shape(artifacts: Path) -> None:
    found, parent = inspect(artifacts / "onnx-f16").structure, inspect(artifacts / "parent-bf16")
    lost = {name: shape for name, shape in found.tensors.items() if "embed" in name}
    shapes = tuple(shape for name, shape in found.tensors.items() if name not in lost)
    child = replace(found, tensors=lost, unnamed=shapes)
    assert structure_problems(child, _facts(parent)) == ()
    assert structure_problems(replace(child, unnamed=shapes[1:]), _facts(parent))
    assert structure_problems(replace(child, unnamed=(*shapes[1:], (64, 65))), _facts(parent))
    nameless = replace(parent, structure=child)
    assert structure_problems(found, _facts(nameless)) == ()
    assert structure_problems(replace(child, unnamed=shapes[1:]), _facts(nameless))


@pytest.mark.parametrize("name", ["onnx-cnn", "onnx-sklearn"])
def test_a_classifier_is_no_language_model(artifacts: Path, name: str) -> None:
    found = inspect(artifacts / name)
    assert (found.is_language_model, found.quantization.is_quantized) == (False, False)
    assert (found.quantization.format, found.quantization.bits) == ("onnx", None)


def test_a_quantized_classifier_is_quantized(artifacts: Path) -> None:
    found = inspect(artifacts / "onnx-cnn-int8")
    assert (found.is_language_model, found.quantization.bits, found.quantization.activation_bits) == (False, 8, 8)


def test_a_file_without_its_folder(artifacts: Path, tmp_path: Path) -> None:
    source = artifacts / "onnx-genai-int4"
    whole = inspect(source / "model.onnx").quantization
    assert whole.size_bytes == sum((source / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
    shutil.copy(source / "model.onnx", tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="which is not there"):
        inspect(tmp_path)
    shutil.copy(source / "model.onnx.data", tmp_path / "model.onnx.data")
    facts = inspect(tmp_path)
    assert (facts.quantization.bits, facts.is_language_model, facts.structure.num_kv_heads) == (4, True, 2)


def test_weights_beside_a_graph_belong_to_its_digest(artifacts: Path, tmp_path: Path) -> None:
    source, folder = artifacts / "onnx-genai-int4", tmp_path / "model"
    with pytest.raises(ArtifactError, match="beside it"):
        copy_with_manifest(source / "model.onnx", folder)
    with pytest.raises(ArtifactError, match="beside it"):
        prepare(source / "model.onnx", parent=None, target=None)
    with pytest.raises(ArtifactError, match="beside it"):
        build_manifest(artifacts / "openvino-nf4" / "openvino_model.xml")
    folder.mkdir()
    odd = (source / "model.onnx").read_bytes().replace(b"model.onnx.data", b"model.onnx.more")
    (folder / "model.onnx").write_bytes(odd)
    data = bytearray((source / "model.onnx.data").read_bytes())
    (folder / "model.onnx.more").write_bytes(data)
    before = build_manifest(folder).weights_digest
    data[100] ^= 1
    (folder / "model.onnx.more").write_bytes(data)
    assert build_manifest(folder).weights_digest != before


def test_several_graphs(artifacts: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "model_quantized.onnx"):
        shutil.copy(artifacts / "onnx-cnn" / "model.onnx", tmp_path / name)
    with pytest.raises(ArtifactError, match="several models"):
        inspect(tmp_path)
    (tmp_path / "genai_config.json").write_text('{"model": {"decoder": {"filename": "model.onnx"}}}')
    warnings = inspect(tmp_path).quantization.warnings
    assert warnings == ("not-inspected: model_quantized.onnx also holds weights",)
    (tmp_path / "genai_config.json").write_text('{"model": {"decoder": {"filename": "absent.onnx"}}}')
    with pytest.raises(ArtifactError, match="absent"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("file", "config", "words"),
    [
        ("config.json", {"vocab_size": 64}, "vocab_size"),
        ("config.json", {"quantization_config": {"bits": 8}}, "claims 8 bit, its tensors have 4 bit"),
        ("openvino_config.json", {"quantization_config": {"bits": 8}}, "claims 8 bit, its tensors have 4 bit"),
        ("config.json", {"num_hidden_layers": 7}, "number of layers|num_hidden_layers"),
    ],
)
@pytest.mark.parametrize("name", ["onnx-genai-int4", "openvino-int4-asym"])
def test_a_config_that_says_something_else(
    artifacts: Path, tmp_path: Path, name: str, file: str, config: dict[str, Any], words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / name, folder)
    (folder / file).write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=words):
        inspect(folder)


def test_a_config_of_what_the_graph_was_made_from(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / "onnx-int4-nbits", folder)
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq", "bits": 4}}))
    assert inspect(folder).quantization.format == "onnx"


def _facts(found: Inspection, tensors: dict[str, tuple[int, ...]] | None = None) -> ModelFacts:
    structure = found.structure if tensors is None else replace(found.structure, tensors=tensors)
    return ModelFacts("sha256:a", "sha256:b", "sha256:c", found.quantization, structure)


# Graphs that no tool here writes.

CODES = np.random.default_rng(0).integers(-127, 128, (128, 64), dtype=np.int8)
SCALE = np.full((), 0.01, dtype=np.float32)


def _write(folder: Path, onnx: Any, nodes: list[bytes], tensors: list[bytes]) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(onnx.model(nodes, tensors))
    return path


def test_few_bits_in_bytes_are_few_bits(tmp_path: Path, onnx: Any) -> None:
    nodes = [onnx.node("DequantizeLinear", ["w", "s"], ["d"]), onnx.node("MatMul", ["x", "d"], ["y"])]
    facts = inspect(_write(tmp_path, onnx, nodes, [onnx.tensor("w", CODES), onnx.tensor("s", SCALE)])).quantization
    assert (facts.bits, facts.granularity, facts.layers[0].shape) == (8, "tensor", (64, 128))
    narrow = [onnx.tensor("w", np.clip(CODES, -2, 1)), onnx.tensor("s", SCALE)]
    assert inspect(_write(tmp_path, onnx, nodes, narrow)).quantization.bits == 2


def test_floats_that_are_rounded_when_loaded(tmp_path: Path, onnx: Any) -> None:
    nodes = [
        onnx.node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        onnx.node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        onnx.node("MatMul", ["x", "d"], ["y"]),
    ]
    tensors = [onnx.tensor("w", CODES.astype(np.float32)), onnx.tensor("s", SCALE), onnx.tensor("z", np.int8([0]))]
    facts = inspect(_write(tmp_path, onnx, nodes, tensors)).quantization
    assert (facts.bits, facts.quantized_parameters, facts.activation_bits) == (8, CODES.size, None)
    assert facts.warnings[0].startswith("rounded-when-loaded: 1 matrices")


def test_bitsandbytes_codes(tmp_path: Path, onnx: Any) -> None:
    attributes = {"N": 128, "K": 64, "block_size": 64, "quant_type": 1}
    nodes = [onnx.node("MatMulBnb4", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)]
    tensors = [onnx.tensor("w", CODES.reshape(-1)[:4096].view(np.uint8)), onnx.tensor("s", np.ones(128, np.float32))]
    facts = inspect(_write(tmp_path, onnx, nodes, tensors)).quantization
    assert (facts.bits, facts.group_size, facts.layers[0].type, facts.calibration_required) == (4, 64, "nf4", False)
    assert facts.layers[0].shape == (128, 64)


@pytest.mark.parametrize(("kind", "dtype"), [(17, "F8_E4M3"), (19, "F8_E5M2")])
def test_float8(tmp_path: Path, onnx: Any, kind: int, dtype: str) -> None:
    nodes = [onnx.node("DequantizeLinear", ["w", "s"], ["d"]), onnx.node("Gemm", ["x", "d"], ["y"], transB=1)]
    tensors = [onnx.tensor("w", CODES, kind=kind), onnx.tensor("s", SCALE)]
    facts = inspect(_write(tmp_path, onnx, nodes, tensors)).quantization
    assert (facts.bits, facts.layers[0].type, facts.layers[0].shape) == (8, dtype, (128, 64))


def test_act_order_needs_calibration(tmp_path: Path, onnx: Any) -> None:
    attributes = {"N": 128, "K": 64, "block_size": 32, "bits": 4}
    inputs = ["x", "w", "s", "z", "order"]
    nodes = [onnx.node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **attributes)]
    zeros = np.full((128, 1), 0x88, np.uint8)
    tensors = [
        onnx.tensor("w", CODES.reshape(-1)[:4096].view(np.uint8).reshape(128, 2, 16)),
        onnx.tensor("s", np.ones((128, 2), np.float32)), onnx.tensor("order", np.zeros(64, np.int32)),
    ]  # fmt: skip
    facts = inspect(_write(tmp_path, onnx, nodes, [*tensors, onnx.tensor("z", zeros)])).quantization
    assert (facts.desc_act, facts.calibration_required, facts.symmetric) == (True, True, True)
    zeros[5] = 0x87
    assert inspect(_write(tmp_path, onnx, nodes, [*tensors, onnx.tensor("z", zeros)])).quantization.symmetric is False


@pytest.mark.parametrize(
    "change", [{"N": 64}, {"K": 128}, {"block_size": 16}, {"bits": 8}, {"block_size": 0}, {"bits": -1}]
)
def test_blocks_that_do_not_fit_the_codes(artifacts: Path, tmp_path: Path, onnx: Any, change: dict[str, int]) -> None:
    attributes = {"N": 128, "K": 64, "block_size": 32, "bits": 4, **change}
    nodes = [onnx.node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)]
    codes = CODES.reshape(-1)[:4096].view(np.uint8).reshape(128, 2, 16)
    tensors = [onnx.tensor("w", codes), onnx.tensor("s", np.ones((128, 2), np.float32))]
    with pytest.raises(ArtifactError, match="no sound MatMulNBits layer"):
        inspect(_write(tmp_path, onnx, nodes, tensors))


@pytest.mark.parametrize("scale", [np.ones(7, np.float32), np.ones((2, 2), np.float32), None])
def test_scales_that_do_not_fit_the_codes(tmp_path: Path, onnx: Any, scale: np.ndarray | None) -> None:
    nodes = [onnx.node("DequantizeLinear", ["w", "s"], ["d"]), onnx.node("MatMul", ["x", "d"], ["y"])]
    tensors = [onnx.tensor("w", CODES)] + ([] if scale is None else [onnx.tensor("s", scale)])
    with pytest.raises(ArtifactError, match="no sound ONNX layer"):
        inspect(_write(tmp_path, onnx, nodes, tensors))


@pytest.mark.parametrize(
    ("op", "domain"), [("Cast", ""), ("Unpack", "my.own"), ("BitShift", ""), ("Conv", "")],
)  # fmt: skip
def test_codes_that_are_used_in_an_unknown_way(tmp_path: Path, onnx: Any, op: str, domain: str) -> None:
    nodes = [onnx.node(op, ["w"], ["d"], domain=domain), onnx.node("MatMul", ["x", "d"], ["y"])]
    with pytest.raises(UnknownFormatError, match="onnx"):
        inspect(_write(tmp_path, onnx, nodes, [onnx.tensor("w", CODES)]))


def test_packed_integers_that_the_graph_unpacks(tmp_path: Path, onnx: Any) -> None:
    nodes = [onnx.node("BitShift", ["w", "x"], ["d"]), onnx.node("MatMul", ["x", "d"], ["y"])]
    with pytest.raises(UnknownFormatError, match="BitShift"):
        inspect(_write(tmp_path, onnx, nodes, [onnx.tensor("w", CODES.astype(np.int32))]))


def test_a_graph_that_was_compiled_for_a_device(tmp_path: Path, onnx: Any) -> None:
    node = onnx.node("EPContext", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(UnknownFormatError, match="compiled"):
        inspect(_write(tmp_path, onnx, [node], []))


def test_an_embedding_that_is_the_output_matrix_counts_once(tmp_path: Path, onnx: Any) -> None:
    table = np.random.default_rng(1).normal(size=(128, 64)).astype(np.float32)
    nodes = [
        onnx.node("Gather", ["model.embed_tokens.weight", "x"], ["e"], "/model/embed_tokens/Gather"),
        onnx.node("MatMul", ["e", "onnx::MatMul_9"], ["logits"], "/lm_head/MatMul"),
    ]
    first = onnx.tensor("model.embed_tokens.weight", table)
    found = inspect(_write(tmp_path, onnx, nodes, [first, onnx.tensor("onnx::MatMul_9", table.T.copy())]))
    assert (found.quantization.total_parameters, found.is_language_model) == (128 * 64, True)
    other = inspect(_write(tmp_path, onnx, nodes, [first, onnx.tensor("onnx::MatMul_9", -table.T)]))
    assert other.quantization.total_parameters == 2 * 128 * 64
    turned = [nodes[0], onnx.node("Transpose", ["model.embed_tokens.weight"], ["t"], perm=[1, 0])]
    turned.append(onnx.node("MatMul", ["e", "t"], ["logits"], "/lm_head/MatMul"))
    shared = inspect(_write(tmp_path, onnx, turned, [first]))
    assert shared.quantization.total_parameters == 128 * 64
    assert shared.structure.tensors["model.embed_tokens.weight"] == (128, 64)


@pytest.mark.parametrize("changed", [False, True])
def test_a_tied_matrix_that_is_quantized_twice_counts_once_by_its_bytes(
    artifacts: Path, tmp_path: Path, changed: bool
) -> None:
    """Without a config nothing but the codes, scales and zero points of both can tell; one is stored the other way round."""
    source = artifacts / "optimum-int8"
    (graph,) = source.glob("*.onnx")
    copy = tmp_path / "model.onnx"
    data = bytearray(graph.read_bytes())
    if changed:
        (codes,) = (one for one in read_onnx(graph).tensors.values() if one.name == "onnx::MatMul_480_quantized")
        data[codes.offset + 7] ^= 1
    copy.write_bytes(data)
    facts, known = inspect(copy).quantization, inspect(source).quantization
    twice = 258 * 32 if changed else 0
    assert facts.total_parameters == known.total_parameters + twice
    assert facts.quantized_parameters == known.quantized_parameters + twice

"""FP8, NVFP4, MXFP4, HQQ, quanto, AutoRound, AWQ's GEMV and 2:4 sparsity: what real files are, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.tensors import open_safetensors
from mlflow_quantgov.errors import ArtifactError, UnknownFormatError

Writer = Callable[..., Path]
Changer = Callable[..., Path]
LINEAR, ALL = 30720, 47296
ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
EXPECTED: dict[str, dict[str, Any]] = {
    "fp8-block": {"format": "fp8", "bits": 8, "group_size": 32, "granularity": "group", "activation_bits": 8,
                  "calibration_required": False, "symmetric": True, "method": "fp8"},
    "modelopt-fp8-kv": {"format": "fp8", "bits": 8, "granularity": "tensor", "group_size": None, "activation_bits": 8,
                        "kv_cache_bits": 8, "calibration_required": True, "producer": "modelopt 0.47.0"},
    "modelopt-nvfp4": {"format": "nvfp4", "bits": 4, "group_size": 16, "granularity": "group", "activation_bits": 4,
                       "calibration_required": True, "kv_cache_bits": None},
    "hqq-w4g32": {"format": "hqq", "bits": 4, "group_size": 32, "granularity": "group", "symmetric": False,
                  "calibration_required": False, "activation_bits": None},
    "hqq-w3g32-axis0": {"format": "hqq", "bits": 3, "group_size": 32, "granularity": "group"},
    "quanto-int4": {"format": "quanto", "bits": 4, "group_size": None, "granularity": "channel", "symmetric": False,
                    "calibration_required": False, "activation_bits": None},
    "autoround-w4g32-mixed": {"format": "auto-round", "bits": 4, "group_size": 32, "symmetric": True,
                              "producer": "auto-round 0.16.1", "calibration_required": None},
    "autoround-w4g32-asym": {"format": "auto-round", "bits": 4, "group_size": 32, "symmetric": False},
    "awq-gemv": {"format": "awq", "bits": 4, "group_size": 32, "symmetric": False, "calibration_required": True},
    "ct-sparse24-fp8": {"format": "compressed-tensors", "bits": 8, "granularity": "channel", "group_size": None},
}  # fmt: skip


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_raw(path: Path, entries: dict[str, tuple[str, list[int], bytes]]) -> None:
    """Tensors of any storage type, numpy's or not."""
    header, body = {}, b""
    for name, (dtype, shape, data) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def entries_of(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    header, body = header_of(path)
    header.pop("__metadata__", None)
    return {
        name: (one["dtype"], one["shape"], body[one["data_offsets"][0] : one["data_offsets"][1]])
        for name, one in header.items()
    }


@pytest.fixture
def changed(tmp_path: Path) -> Changer:
    """A copy of an artifact with entries of its quantization config, tensors, or whole files changed."""

    def change(name: str, tensors: dict[str, Any] | None = None, **entries: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(ARTIFACTS / name, folder)
        for side in ("hf_quant_config.json", "quantization_config.json"):
            (folder / side).unlink(missing_ok=True)
        config = json.loads((folder / "config.json").read_text())
        if entries:
            config["quantization_config"] = config.get("quantization_config", {}) | entries
        (folder / "config.json").write_text(json.dumps(config))
        if tensors is not None:
            kept = entries_of(folder / "model.safetensors") | tensors
            write_raw(folder / "model.safetensors", {key: one for key, one in kept.items() if one is not None})
        return folder

    return change


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_facts(name: str) -> None:
    found = inspect(ARTIFACTS / name)
    facts = found.quantization
    assert {key: getattr(facts, key) for key in EXPECTED[name]} == EXPECTED[name]
    assert (facts.quantized_parameters, facts.total_parameters, len(facts.layers)) == (LINEAR, ALL, 7)
    assert found.is_language_model
    stored = sum(one.size for one in open_safetensors(ARTIFACTS / name / "model.safetensors").tensors.values())
    assert facts.bits_per_weight == pytest.approx(8 * stored / ALL)


@pytest.mark.parametrize("name", [*sorted(EXPECTED), "ct-marlin24-w4"])
def test_structure_is_the_parents(name: str) -> None:
    assert inspect(ARTIFACTS / name).structure == inspect(ARTIFACTS / "parent-bf16").structure


def test_gpt_oss_is_its_parent_in_mxfp4() -> None:
    parent, found = inspect(ARTIFACTS / "gpt-oss-parent"), inspect(ARTIFACTS / "mxfp4-gpt-oss")
    facts = found.quantization
    assert found.structure == parent.structure
    assert facts.total_parameters == parent.quantization.total_parameters
    assert (facts.format, facts.bits, facts.group_size, facts.calibration_required) == ("mxfp4", 4, 32, False)
    assert {layer.shape for layer in facts.layers} == {(2, 32, 64), (2, 128, 32)}
    assert facts.quantized_parameters == 2 * 32 * 64 + 2 * 128 * 32


def test_marlin24_is_half_of_a_matrix() -> None:
    facts = inspect(ARTIFACTS / "ct-marlin24-w4").quantization
    assert (facts.bits, facts.granularity, facts.quantized_parameters) == (4, "channel", 2 * 64 * 64)
    assert {(layer.type, layer.shape) for layer in facts.layers} == {("marlin-24", (64, 64))}


def test_widths_that_auto_round_sets_by_layer() -> None:
    facts = inspect(ARTIFACTS / "autoround-w4g32-mixed").quantization
    assert {layer.name.rpartition(".")[2]: layer.bits for layer in facts.layers if layer.bits != 4} == {"down_proj": 8}
    assert facts.warnings == ("mixed-widths: 4 bit: 24,576 weights, 8 bit: 6,144 weights",)


def test_quanto_groups_get_their_shape_from_the_config() -> None:
    found = inspect(ARTIFACTS / "quanto-int2-groups")
    by_name = {layer.name.rpartition(".")[2]: layer for layer in found.quantization.layers}
    assert (by_name["down_proj"].shape, by_name["down_proj"].group_size) == ((64, 256), 128)
    assert (by_name["up_proj"].shape, by_name["up_proj"].group_size) == ((256, 64), None)
    assert {layer.bits for layer in found.quantization.layers} == {2}


def test_quanto_groups_whose_shape_nothing_tells(changed: Changer) -> None:
    folder = changed("quanto-int2-groups")
    config = json.loads((folder / "config.json").read_text()) | {"intermediate_size": None}
    (folder / "config.json").write_text(json.dumps(config))
    facts = inspect(folder).quantization
    down = next(layer for layer in facts.layers if layer.name.endswith("down_proj"))
    assert (down.shape, down.group_size) == ((128, 128), 128)
    assert any(one.startswith("shape-unknown") for one in facts.warnings)


@pytest.mark.parametrize(
    ("name", "entries", "words"),
    [
        ("fp8-block", {"weight_block_size": [128, 128]}, ["128x128", "group size 32"]),
        ("fp8-block", {"activation_scheme": "static"}, ["static activation scales", "none"]),
        ("fp8-block", {"fmt": "e5m2"}, ["e5m2", "e4m3"]),
        ("fp8-block", {"quant_method": "hqq"}, ["hqq", "fp8"]),
        ("modelopt-fp8-kv", {"quant_algo": "NVFP4"}, ["NVFP4", "8 bit"]),
        ("modelopt-nvfp4", {"quant_algo": "FP8"}, ["FP8", "4 bit"]),
        ("mxfp4-gpt-oss", {"quant_method": "gptq"}, ["gptq", "mxfp4"]),
        ("hqq-w4g32", {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 8}}}, ["8 bit", "4 bit"]),
        ("hqq-w4g32", {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"group_size": 64, "axis": 1}}},
         ["group size 64", "group size 32"]),
        ("quanto-int4", {"quant_method": "quanto", "weights": "int8"}, ["8 bit", "4 bit"]),
        ("autoround-w4g32-mixed", {"bits": 2}, ["2 bit or 8 bit", "4 bit"]),
        ("autoround-w4g32-mixed", {"extra_config": {"model.layers.0.mlp.down_proj": {"bits": 3}}}, ["3 bit", "8 bit"]),
        ("autoround-w4g32-asym", {"sym": True}, ["symmetric", "zero points"]),
        ("autoround-w4g32-asym", {"group_size": 128}, ["group size 128", "group size 32"]),
        ("awq-gemv", {"version": "gemm"}, ["layout gemm", "layout gemv"]),
        ("awq-gemv", {"group_size": 64}, ["group size 64", "group size 32"]),
        ("awq-w4g32", {"version": "gemv_fast"}, ["layout gemv_fast", "layout gemm"]),
        ("awq-w4g32", {"zero_point": False}, ["zero_point false", "zero points off the middle"]),
        ("fp8-block", {"weight_block_size": None}, ["no blocks", "blocks of 32"]),
        ("bnb-nf4-double", {"bnb_4bit_use_double_quant": False}, ["maxima as floats", "double quantization"]),
        ("bnb-fp4", {"bnb_4bit_use_double_quant": True}, ["double quantization", "maxima as floats"]),
        ("bnb-int8", {"load_in_8bit": False}, ["neither 4 nor 8 bit", "int8"]),
        ("ct-w4g32", {"format": "int-quantized"}, ["int-quantized", "packed int codes"]),
        ("ct-w8a8", {"format": "pack-quantized"}, ["pack-quantized", "int codes"]),
        ("ct-fp8-tensor", {"format": "int-quantized"}, ["int-quantized", "float8 codes"]),
    ],
)  # fmt: skip
def test_a_config_that_disagrees(changed: Changer, name: str, entries: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ArtifactError) as raised:
        inspect(changed(name, **entries))
    assert all(word in raised.value.what for word in words), raised.value.what
    assert raised.value.fix


@pytest.mark.parametrize(
    ("name", "strategy", "words"),
    [
        ("ct-w8a8", "tensor", ["scales per tensor", "one per channel"]),
        ("ct-fp8-tensor", "channel", ["scales per channel", "one per tensor"]),
    ],
)
def test_scales_that_a_config_shares_otherwise(changed: Changer, name: str, strategy: str, words: list[str]) -> None:
    groups = json.loads((ARTIFACTS / name / "config.json").read_text())["quantization_config"]["config_groups"]
    groups["group_0"]["weights"]["strategy"] = strategy
    with pytest.raises(ArtifactError) as raised:
        inspect(changed(name, config_groups=groups))
    assert all(word in raised.value.what for word in words), raised.value.what


@pytest.mark.parametrize(
    ("name", "kind", "fields", "words"),
    [
        ("torchao-int8wo", "Float8WeightOnlyConfig", {}, ["Float8WeightOnlyConfig", "Int8Tensor"]),
        ("torchao-float8wo", "Int8WeightOnlyConfig", {}, ["Int8WeightOnlyConfig", "Float8Tensor"]),
        ("torchao-mxfp4", "NVFP4WeightOnlyConfig", {}, ["NVFP4WeightOnlyConfig", "MXTensor"]),
        ("torchao-int8dyn", "Int8WeightOnlyConfig", {}, ["weights only", "quantized activations"]),
        ("torchao-float8wo", None, {"weight_dtype": {"_data": "float8_e5m2", "_type": "torch.dtype"}},
         ["float8_e5m2", "F8_E4M3"]),
        ("torchao-intx8", None, {"weight_dtype": {"_data": "int4", "_type": "torch.dtype"}}, ["int4", "8 bit"]),
        ("torchao-int4g32", None, {"granularity": {"_data": {"group_size": 64}, "_type": "PerGroup"}},
         ["group size 64", "group size 32"]),
    ],
)  # fmt: skip
def test_a_configuration_of_torchao_that_disagrees(
    changed: Changer, name: str, kind: str | None, fields: dict[str, Any], words: list[str]
) -> None:
    quant_type = json.loads((ARTIFACTS / name / "config.json").read_text())["quantization_config"]["quant_type"]
    default = quant_type["default"]
    default["_type"] = kind or default["_type"]
    default["_data"] |= fields
    with pytest.raises(ArtifactError) as raised:
        inspect(changed(name, quant_type=quant_type))
    assert all(word in raised.value.what for word in words), raised.value.what


@pytest.mark.parametrize(
    ("name", "codes"),
    [("torchao-int4g32", "_weight_qdata"), ("torchao-int8wo", "_weight_qdata"), ("ct-w8a8", "weight")],
)
def test_a_matrix_of_zeros_has_no_width_of_its_own(changed: Changer, name: str, codes: str) -> None:
    """Pruned layers and experts that were padded are zeros, and their codes say nothing."""
    stored = f"model.layers.0.mlp.up_proj.{codes}"
    _, _, data = entries_of(ARTIFACTS / name / "model.safetensors")[stored]
    folder = changed(name)
    header, _ = header_of(folder / "model.safetensors")
    with (folder / "model.safetensors").open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        file.seek(8 + size + header[stored]["data_offsets"][0])
        file.write(bytes(len(data)))
    assert {one.bits for one in inspect(folder).quantization.layers} == {inspect(ARTIFACTS / name).quantization.bits}


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ({"weights": "qint2"}, ["qint2", "4 bit integers"]),
        ({"weights": "qfloat8_e4m3fn"}, ["qfloat8", "4 bit integers"]),
    ],
)
def test_a_quanto_map_that_disagrees(changed: Changer, types: dict[str, str], words: list[str]) -> None:
    folder = changed("quanto-int4")
    path = folder / "quanto_qmap.json"
    mapped = json.loads(path.read_text())
    mapped["model.layers.0.mlp.up_proj"] = types
    path.write_text(json.dumps(mapped))
    with pytest.raises(ArtifactError) as raised:
        inspect(folder)
    assert all(word in raised.value.what for word in [*words, "quanto_qmap.json"]), raised.value.what
    path.write_text(json.dumps({"lm_head": {"weights": "qint8"}}))
    with pytest.raises(ArtifactError, match="no quantized matrix of that name"):
        inspect(folder)


def test_quanto_activations_need_calibration(changed: Changer) -> None:
    scale = ("BF16", [], (0x3F000000 >> 16).to_bytes(2, "little"))
    facts = inspect(changed("quanto-int4", {"model.layers.0.mlp.up_proj.input_scale": scale})).quantization
    assert (facts.activation_bits, facts.calibration_required, facts.total_parameters) == (8, True, ALL)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("fp8-block", "model.layers.0.mlp.up_proj.weight_scale_inv"),
        ("modelopt-nvfp4", "model.layers.0.mlp.up_proj.weight_scale"),
        ("mxfp4-gpt-oss", "model.layers.0.mlp.experts.down_proj_scales"),
        ("hqq-w4g32", "model.layers.0.mlp.up_proj.scale"),
        ("hqq-w4g32", "model.layers.0.mlp.up_proj.shape"),
        ("hqq-w4g32", "model.layers.0.mlp.up_proj.packing"),
        ("quanto-int4", "model.layers.0.mlp.up_proj.weight._scale"),
        ("quanto-int4", "model.layers.0.mlp.up_proj.weight._shift"),
        ("autoround-w4g32-mixed", "model.layers.0.mlp.up_proj.qzeros"),
        ("awq-gemv", "model.layers.0.mlp.up_proj.scales"),
        ("ct-sparse24-fp8", "model.layers.0.mlp.up_proj.compressed"),
        ("ct-marlin24-w4", "model.layers.0.self_attn.q_proj.meta"),
    ],
)
@pytest.mark.parametrize("how", ["missing", "short"])
def test_parts_that_do_not_fit(changed: Changer, name: str, tensor: str, how: str) -> None:
    dtype, shape, data = entries_of(ARTIFACTS / name / "model.safetensors")[tensor]
    rows = shape[0] if shape else 1
    cut = (dtype, [max(rows - 1, 0), *shape[1:]], data[: len(data) // rows * (rows - 1)])
    with pytest.raises(ArtifactError) as raised:
        inspect(changed(name, {tensor: None if how == "missing" else cut}))
    assert tensor.split(".")[4] in raised.value.what, raised.value.what
    assert raised.value.fix


def test_hqq_codes_that_use_other_bits_than_are_noted(changed: Changer) -> None:
    stem = "model.layers.0.mlp.up_proj"
    with pytest.raises(ArtifactError, match=rf"{stem}\.nbits .*claims 2 bit, its tensors have 4 bit"):
        inspect(changed("hqq-w4g32", {f"{stem}.nbits": ("I32", [], (2).to_bytes(4, "little"))}))


def test_hqq_bytes_that_hold_narrower_codes(model_folder: Writer) -> None:
    codes = np.random.default_rng(0).integers(0, 64, (64, 32)).astype(np.uint8)
    tensors = hqq_tensors(codes, (32, 64), 32, 6, "8bit_u8")
    assert inspect(model_folder(tensors)).quantization.bits == 6
    tensors["l.nbits"] = np.array(8, np.int32)
    with pytest.raises(ArtifactError, match="claims 8 bit, its tensors have 6 bit"):
        inspect(model_folder(tensors, None, "claims-8"))
    tensors["l.quant_scale"] = np.array(1, np.uint8)
    with pytest.raises(ArtifactError, match="quantized again"):
        inspect(model_folder(tensors, None, "nested"))


def hqq_tensors(
    codes: np.ndarray, shape: tuple[int, int], group: int, bits: int, packing: str
) -> dict[str, np.ndarray]:
    groups = shape[0] * shape[1] // group
    return {
        "l.W_q": codes,
        "l.scale": np.ones((groups, 1), np.float16),
        "l.zero": np.full((groups, 1), 1.5, np.float16),
        "l.shape": np.array(shape),
        "l.nbits": np.array(bits, np.int32),
        "l.group_size": np.array(group, np.int32),
        "l.axis": np.array(1, np.int32),
        "l.packing": np.frombuffer(packing.encode(), np.uint8),
        "l.channel_wise": np.array(1, np.uint8),
    }


@given(
    rows=st.sampled_from([32, 48, 64]), columns=st.sampled_from([32, 64, 96]), parts=st.tuples(*[st.integers(1, 4)] * 2)
)
@settings(max_examples=30, deadline=None)
def test_blocks_of_float8_whatever_their_number(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, parts: tuple[int, int]
) -> None:
    path = tmp_path_factory.mktemp("f8") / "model.safetensors"
    down, across = parts
    write_raw(path, {
        "l.weight": ("F8_E4M3", [rows, columns], bytes(rows * columns)),
        "l.weight_scale_inv": ("F32", [down, across], bytes(4 * down * across)),
    })  # fmt: skip
    try:
        facts = inspect(path).quantization
    except ArtifactError as error:
        assert error.fix
        return
    layer = facts.layers[0]
    assert (facts.bits, layer.shape) == (8, (rows, columns))
    if layer.group_size is not None:
        assert -(-columns // layer.group_size) == across


@pytest.mark.parametrize(
    ("scale", "granularity"),
    [([], "tensor"), ([1], "tensor"), ([64, 1], "channel"), ([64], "channel"), ([2, 3], "group"), ([64, 3], "group")],
)
def test_scales_of_float8(tmp_path: Path, scale: list[int], granularity: str) -> None:
    count = int(np.prod(scale)) if scale else 1
    write_raw(tmp_path / "model.safetensors", {
        "l.weight": ("F8_E5M2", [64, 96], bytes(64 * 96)),
        "l.weight_scale": ("F32", scale, bytes(4 * count)),
    })  # fmt: skip
    facts = inspect(tmp_path).quantization
    assert (facts.format, facts.granularity, facts.method, facts.calibration_required) == (
        "fp8",
        granularity,
        None,
        None,
    )
    assert facts.group_size == (32 if granularity == "group" else None)
    assert facts.layers[0].type == "e5m2"


def test_float8_experts_in_a_stack(tmp_path: Path) -> None:
    write_raw(tmp_path / "model.safetensors", {
        "mlp.experts.down_proj": ("F8_E4M3", [2, 64, 64], bytes(2 * 64 * 64)),
        "mlp.experts.down_proj_scale_inv": ("F32", [2, 2, 2], bytes(32)),
    })  # fmt: skip
    found = inspect(tmp_path)
    assert (found.quantization.bits, found.quantization.group_size) == (8, 32)
    assert found.structure.tensors == {"mlp.experts.down_proj": (2, 64, 64)}


def test_float8_without_a_scale_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "model.safetensors", {"l.weight": ("F8_E4M3", [8, 8], bytes(64))})
    with pytest.raises(UnknownFormatError, match="float8 without scales"):
        inspect(tmp_path)


def gemv_fast(centred: bool) -> dict[str, np.ndarray]:
    scales = np.zeros((8, 64), np.float16)
    scales[:2] = np.random.default_rng(0).uniform(0.5, 1, (2, 64))
    middle = np.full((8, 64), 8 if centred else 7, np.float32)
    return {
        "l.qweight": np.zeros((16, 256), np.int16),
        "l.scales": scales,
        "l.qzeros": (-(scales * middle)).astype(np.float16),
    }


@pytest.mark.parametrize("centred", [True, False])
def test_awq_for_fast_gemv(model_folder: Writer, centred: bool) -> None:
    claim = {"quant_method": "awq", "version": "gemv_fast", "bits": 4, "group_size": 128}
    facts = inspect(model_folder(gemv_fast(centred), {"quantization_config": claim})).quantization
    assert (facts.bits, facts.group_size, facts.symmetric) == (4, 128, centred)
    assert (facts.layers[0].shape, facts.layers[0].type) == ((64, 256), "gemv_fast")


def test_awq_for_marlin(model_folder: Writer) -> None:
    tensors = {"l.qweight": np.zeros((16, 128), np.int32), "l.scales": np.ones((2, 64), np.float16)}
    claim = {"quant_method": "awq", "version": "marlin", "bits": 4, "group_size": 128}
    facts = inspect(model_folder(tensors, {"quantization_config": claim})).quantization
    assert (facts.bits, facts.group_size, facts.symmetric, facts.layers[0].shape) == (4, 128, True, (64, 256))


def test_gptq_widths_by_layer_must_be_among_the_claimed(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dynamic"
    shutil.copytree(artifacts / "gptq-w4g32", folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= {"bits": 8, "dynamic": {r"+:.*(a+)+$": {"bits": 4}}}
    (folder / "config.json").write_text(json.dumps(config))
    assert inspect(folder).quantization.bits == 4
    config["quantization_config"]["dynamic"] = {r"+:.*up.*": {"bits": 2, "group_size": 64}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="claims 2 bit or 8 bit, its tensors have 4 bit"):
        inspect(folder)


def test_pruned_floats_are_not_read(changed: Changer) -> None:
    stem = "model.layers.0.mlp.up_proj"
    kept = ("BF16", [96, 32], bytes(96 * 32 * 2))
    with pytest.raises(UnknownFormatError, match="pruned, not quantized"):
        inspect(changed("ct-sparse24-fp8", {f"{stem}.compressed": kept, f"{stem}.weight_scale": None}))


def test_a_model_that_auto_round_wrote_back_as_floats_is_refused(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fake"
    shutil.copytree(artifacts / "parent-bf16", folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "auto-round", "bits": 8, "packing_format": "auto_round:fake"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="claims the format auto-round, its tensors have no matrix packed that way"):
        inspect(folder)


ODD = (None, True, -3, 10**40, float("nan"), "odd", [[]], {"a": {}})
FOLDERS = ("fp8-block", "modelopt-nvfp4", "mxfp4-gpt-oss", "hqq-w4g32", "quanto-int4", "autoround-w4g32-mixed", "awq-gemv",
           "ct-sparse24-fp8")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_odd_values_in_configs_are_read_or_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(ARTIFACTS / name, folder)
    for path in sorted(folder.glob("*.json")):
        config = json.loads(path.read_text())
        holders = [config]
        for holder in holders:
            holders.extend(one for one in holder.values() if isinstance(one, dict))
        for holder in holders:
            for key, kept in list(holder.items()):
                for odd in ODD:
                    holder[key] = odd
                    path.write_text(json.dumps(config))
                    try:
                        inspect(folder)
                    except ArtifactError as error:
                        assert error.fix
                holder[key] = kept
        path.write_text(json.dumps(config))


@pytest.mark.parametrize("name", FOLDERS)
def test_odd_shapes_and_types_of_tensors_are_read_or_refused(tmp_path: Path, name: str) -> None:
    source = ARTIFACTS / name
    shutil.copytree(source, tmp_path / name)
    kept = entries_of(source / "model.safetensors")
    chosen = [one for one in kept if "up_proj" in one or "experts" in one]
    for one in chosen:
        dtype, shape, data = kept[one]
        size = len(data)
        odd = [(dtype, [*shape, 1], data), ("U8", [size], data), ("I8", [1, size], data), ("U8", [size, 1, 1], data),
               (dtype, [0], b""), ("F32", [2, 2], bytes(range(16)))]  # fmt: skip
        for replacement in odd:
            write_raw(tmp_path / name / "model.safetensors", kept | {one: replacement})
            try:
                inspect(tmp_path / name)
            except ArtifactError as error:
                assert error.fix


@pytest.mark.parametrize("name", FOLDERS)
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, name: str) -> None:
    shutil.copytree(ARTIFACTS / name, tmp_path / name)
    path = tmp_path / name / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match="not a sound model file"):
        inspect(tmp_path / name)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["awq", "auto-round"])
@pytest.mark.parametrize("groups", [64, 63, 128])
def test_more_groups_than_columns_are_no_matrix(model_folder: Writer, method: str, groups: int) -> None:
    stem, words = "model.layers.0.mlp.up_proj", np.full((32, 8), 0x12345678, np.int32)
    tensors = {f"{stem}.qweight": words, f"{stem}.scales": np.ones((groups, 64), np.float16)}
    tensors[f"{stem}.qzeros"] = np.zeros((groups, 8), np.int32)
    folder = model_folder(tensors, {"quantization_config": {"quant_method": method, "bits": 4}})
    with pytest.raises(ArtifactError, match=r"no sound .* layer"):
        matrices(folder)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("groups", [1, 4, 32])
def test_groups_are_those_of_the_facts(model_folder: Writer, groups: int) -> None:
    stem, words = "model.layers.0.mlp.up_proj", np.full((32, 8), 0x12345678, np.int32)
    tensors = {f"{stem}.qweight": words, f"{stem}.scales": np.ones((groups, 64), np.float16)}
    folder = model_folder(tensors, {"quantization_config": {"quant_method": "awq", "bits": 4}})
    (one,) = matrices(folder).values()
    assert one.group_size == (32 // groups if groups > 1 else None)
    assert one.block(0, 64).values.shape == (64, 32)

"""Real tools at settings that the other fixtures leave out (`make_settings.py`), and what is left out of their files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from test_more_formats import ARTIFACTS, entries_of, header_of, write_raw

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.derivation import compare
from mlflow_quantgov.artifact.derivation.casts import to_bfloat16
from mlflow_quantgov.artifact.formats.torchao import _claimed_width
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.tensors import open_safetensors, read_safetensors, write_safetensors
from mlflow_quantgov.errors import ArtifactError, UnknownFormatError

PARENT = ARTIFACTS / "parent-bf16"
EXPECTED: dict[str, dict[str, Any]] = {
    "torchao-intx8": {"format": "torchao", "bits": 8, "group_size": 32, "symmetric": True, "activation_bits": None},
    "torchao-int8dyn-intx4": {"format": "torchao", "bits": 4, "group_size": 32, "activation_bits": 8,
                              "method": "Int8DynamicActivationIntxWeightConfig"},
    "torchao-mxfp4": {"format": "torchao", "bits": 4, "group_size": 32, "activation_bits": 4},
    "ct-fp8-block-short": {"format": "compressed-tensors", "bits": 8, "group_size": 64, "granularity": "group"},
    "ct-mxfp8": {"format": "compressed-tensors", "bits": 8, "group_size": 32, "activation_bits": None},
    "ct-w8g32-asym": {"format": "compressed-tensors", "bits": 8, "group_size": 32, "symmetric": False},
}  # fmt: skip


def copied(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(ARTIFACTS / name, tmp_path / name))


def claim_of(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= entries
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", EXPECTED)
def test_real_artifacts_are_what_their_settings_were(name: str) -> None:
    facts = inspect(ARTIFACTS / name).quantization
    assert {key: getattr(facts, key) for key in EXPECTED[name]} == EXPECTED[name]
    stored = sum(len(data) for _, _, data in entries_of(ARTIFACTS / name / "model.safetensors").values())
    assert facts.total_parameters == 47296
    assert facts.bits_per_weight == pytest.approx(8 * stored / 47296)
    assert (len(facts.layers), facts.quantized_parameters, facts.warnings) == (7, 30720, ())


@pytest.mark.parametrize("name", EXPECTED)
def test_they_come_from_their_parent_and_from_no_other(tmp_path: Path, name: str) -> None:
    found = compare(ARTIFACTS / name, PARENT)
    assert (found.verdict, [one.problem for one in found.layers if one.problem]) == ("proved", [])
    other = copied(tmp_path, "parent-bf16")
    entries = entries_of(other / "model.safetensors")
    write_raw(other / "model.safetensors", {
        key: (kind, shape, np.roll(np.frombuffer(data, "<u2"), 1001).tobytes() if key.endswith("_proj.weight") else data)
        for key, (kind, shape, data) in entries.items()
    })  # fmt: skip
    assert compare(ARTIFACTS / name, other).verdict == "refuted"


def test_a_block_that_is_shorter_at_the_end_has_the_size_of_the_others() -> None:
    layers = {one.name.rpartition(".")[2]: one for one in inspect(ARTIFACTS / "ct-fp8-block-short").quantization.layers}
    # 64 and 32 of 96 columns; 64 and 32 of 96 rows, which are as wide as a block.
    assert (layers["down_proj"].shape, layers["down_proj"].group_size) == ((64, 96), 64)
    assert (layers["up_proj"].shape, layers["up_proj"].group_size) == ((96, 64), 64)


@pytest.mark.parametrize(("name", "width"), [
    ("Int8DynamicActivationIntxWeightConfig", None), ("Int8DynamicActivationInt4WeightConfig", 4),
    ("Float8DynamicActivationInt4WeightConfig", 4), ("Float8DynamicActivationFloat8WeightConfig", 8),
    ("Int8WeightOnlyConfig", 8), ("Int4WeightOnlyConfig", 4), ("IntxWeightOnlyConfig", None), (None, None),
])  # fmt: skip
def test_the_width_in_the_name_of_a_torchao_configuration_is_that_of_the_weights(
    name: str | None, width: float | None
) -> None:
    assert _claimed_width(name) == width


def renamed(name: str) -> str:
    """As transformers saves the tensors of some models: otherwise than the header of the same file calls them."""
    return name.replace("model.layers.", "encoder.layer.").replace("self_attn.q_proj", "attention.query")


def test_torchao_tensors_that_were_renamed_are_read_as_the_header_describes_others(tmp_path: Path) -> None:
    folder = copied(tmp_path, "torchao-float8wo")
    path = folder / "model.safetensors"
    header, body = header_of(path)
    text = json.dumps({key if key == "__metadata__" else renamed(key): one for key, one in header.items()}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    facts = inspect(folder).quantization
    assert (facts.bits, facts.granularity, len(facts.layers)) == (8, "channel", 7)
    assert facts.layers[-1].name.startswith("encoder.layer.0.")
    header["__metadata__"] = {}
    text = json.dumps({renamed(key): one for key, one in header.items()}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    with pytest.raises(ArtifactError, match="a torchao kind that its header does not name"):
        inspect(folder)


@pytest.mark.parametrize(("name", "part"), [
    ("torchao-intx8", "_weight_zero_point"), ("torchao-intx8", "_weight_scale"), ("torchao-mxfp4", "_weight_scale"),
    ("torchao-float8wo", "_weight_scale"), ("ct-mxfp8", "weight_scale"), ("ct-w8g32-asym", "weight_scale"),
    ("ct-fp8-tensor", "weight_scale"), ("bnb-nf4-double", "weight.quant_state.bitsandbytes__nf4"), ("bnb-int8", "SCB"),
])  # fmt: skip
def test_a_matrix_without_what_makes_weights_of_its_codes_is_no_sound_one(tmp_path: Path, name: str, part: str) -> None:
    folder = copied(tmp_path, name)
    path = folder / "model.safetensors"
    metadata = header_of(path)[0].get("__metadata__", {})
    entries = entries_of(path)
    del entries[f"model.layers.0.mlp.up_proj.{part}"]
    write_raw(path, entries)
    _with_metadata(path, metadata)
    with pytest.raises(ArtifactError, match=r"up_proj.* is no sound"):
        inspect(folder)


def test_torchao_scales_that_are_not_one_per_block_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path, "torchao-mxfp4")
    path = folder / "model.safetensors"
    metadata, entries = header_of(path)[0]["__metadata__"], entries_of(path)
    kind, shape, data = entries["model.layers.0.mlp.up_proj._weight_scale"]
    entries["model.layers.0.mlp.up_proj._weight_scale"] = (kind, [len(data) // 2], data[: len(data) // 2])
    assert len(shape) == 2
    write_raw(path, entries)
    _with_metadata(path, metadata)
    with pytest.raises(ArtifactError, match=r"up_proj.* is no sound torchao layer"):
        inspect(folder)


def _with_metadata(path: Path, metadata: dict[str, str]) -> None:
    header, body = header_of(path)
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_a_model_whose_cache_alone_is_quantized_is_named_so() -> None:
    with pytest.raises(UnknownFormatError, match="quantizes its KV cache and no weights") as caught:
        inspect(ARTIFACTS / "ct-kv-cache-only")
    assert "parent" in str(caught.value.why)


def test_zero_points_of_float8_are_no_float8_weights(tmp_path: Path) -> None:
    folder = copied(tmp_path, "parent-bf16")
    entries = entries_of(folder / "model.safetensors")
    entries["model.layers.0.mlp.up_proj.weight_zero_point"] = ("F8_E4M3", [96, 1], b"\0" * 96)
    write_raw(folder / "model.safetensors", entries)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "fp8"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="claims the format fp8, its tensors have no matrix packed that way"):
        inspect(folder)


def test_an_awq_file_names_the_tool_that_wrote_it(tmp_path: Path) -> None:
    folder = copied(tmp_path, "awq-w4g32")
    claim_of(folder, meta={"quantizer": ["gptqmodel:7.7.0"]})
    assert inspect(folder).quantization.producer == "gptqmodel 7.7.0"


def test_parts_of_a_matrix_that_nobody_dequantizes_are_no_tensors_that_a_parent_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow_quantgov.artifact.dequantize import registry

    monkeypatch.setattr(registry, "_QUANTIZED", {})
    assert set(matrices(ARTIFACTS / "hqq-w4g32")) == set(matrices(PARENT))
    assert compare(ARTIFACTS / "hqq-w4g32", PARENT).verdict == "unproved"


def test_gemmas_norms_may_have_had_one_added_and_taken_away(tmp_path: Path) -> None:
    weights = entries_of(PARENT / "model.safetensors")
    # A tensor of this name makes it one of Gemma's blocks, whose norms have one added.
    norm = "model.layers.0.pre_feedforward_layernorm.weight"
    numbers = to_bfloat16(0.1 * np.random.default_rng(0).standard_normal(64).astype(np.float32))
    passed = to_bfloat16(to_bfloat16(numbers + np.float32(1)) - np.float32(1))
    assert (passed != numbers).sum() > 10
    for name, one in (("parent", numbers), ("child", passed), ("other", to_bfloat16(numbers * np.float32(1.05)))):
        (tmp_path / name).mkdir()
        patterns = (np.ascontiguousarray(one).view("<u4") >> 16).astype("<u2")
        write_raw(tmp_path / name / "model.safetensors", weights | {norm: ("BF16", [64], patterns.tobytes())})
        shutil.copy(PARENT / "config.json", tmp_path / name)
    assert compare(tmp_path / "child", tmp_path / "parent").verdict == "proved"
    assert compare(tmp_path / "other", tmp_path / "parent").verdict == "refuted"


def write_gguf(path: Path, tensors: dict[str, Any], **texts: str) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, text in texts.items():
        writer.add_string(key.replace("__", "."), text)
    for name, one in tensors.items():
        writer.add_tensor(name, one)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("kind", "names", "called"), [
    ("adapter", ("blk.0.attn_q.weight.lora_a",), "an adapter"), ("model", ("blk.0.attn_q.weight.lora_a",), "an adapter"),
    ("imatrix", ("blk.0.attn_q.weight.in_sum2",), "an importance matrix"), ("model", (), "a vocabulary"),
])  # fmt: skip
def test_gguf_files_that_are_no_models_are_not_taken_for_full_precision(
    tmp_path: Path, kind: str, names: tuple[str, ...], called: str
) -> None:
    path = write_gguf(tmp_path / "x.gguf", {name: np.zeros((8, 32), np.float32) for name in names}, general__type=kind)
    with pytest.raises(ArtifactError, match=f"is {called}"):
        inspect(path)


def test_a_split_gguf_of_which_parts_are_missing_says_so(tmp_path: Path) -> None:
    for place in (0, 2):
        writer = gguf.GGUFWriter(tmp_path / f"m-{place + 1:05d}-of-00003.gguf", "llama")
        writer.add_uint16("split.no", place)
        writer.add_uint16("split.count", 3)
        writer.add_tensor(f"blk.{place}.attn_q.weight", np.zeros((8, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    with pytest.raises(ArtifactError, match="it holds 2 of 3 parts of a model"):
        inspect(tmp_path)


def all_schemes(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    for group in config["quantization_config"]["config_groups"].values():
        group["weights"] |= entries
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "entries", "said"),
    [
        ("ct-w4g32-asym", {"symmetric": True}, "zero points"),
        ("ct-w8g32-asym", {"symmetric": True}, "zero points"),
        ("ct-w4g32", {"type": "float"}, "int"),
        ("ct-w8a8", {"type": "float"}, "int"),
        ("ct-mxfp8", {"type": "int"}, "float"),
    ],
)
def test_codes_and_zero_points_that_a_config_denies(tmp_path: Path, name: str, entries: Any, said: str) -> None:
    """Loaders leave zero points where they are if the config says that there are none."""
    folder = copied(tmp_path, name)
    all_schemes(folder, **entries)
    with pytest.raises(ArtifactError, match=f"claims .*, its tensors have {said}"):
        inspect(folder)


def test_inputs_that_a_config_turns(tmp_path: Path) -> None:
    folder = copied(tmp_path, "ct-w4g32")
    assert compare(folder, PARENT).verdict == "proved"
    claim_of(folder, transform_config={"config_groups": {"R": {"type": "hadamard", "apply": []}}})
    assert "transform_config" in compare(folder, PARENT).reason


def test_a_table_that_no_kernel_reads(tmp_path: Path) -> None:
    """Kernels know nf4's levels by heart; codes for others are other weights."""
    folder = copied(tmp_path, "bnb-nf4-double")
    tensors = {name: one.copy() for name, one in read_safetensors(folder / "model.safetensors")}
    for name in tensors:
        if name.endswith(".weight.quant_map"):
            tensors[name] = np.linspace(-1, 1, 16, dtype=np.float32)
    write_safetensors(folder / "model.safetensors", tensors)
    found = compare(folder, PARENT)
    assert found.verdict == "unproved" and "its table is not nf4's" in found.reason


def test_a_state_that_names_another_table(tmp_path: Path) -> None:
    folder = copied(tmp_path, "bnb-nf4-double")
    tensors = {name: one.copy() for name, one in read_safetensors(folder / "model.safetensors")}
    for name, one in tensors.items():
        if "quant_state" in name:
            tensors[name] = np.frombuffer(one.tobytes().replace(b'"nf4"', b'"fp4"'), dtype=np.uint8)
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(ArtifactError, match="no sound bitsandbytes"):
        inspect(folder)


def test_inputs_that_are_scaled_first(tmp_path: Path) -> None:
    folder = copied(tmp_path, "torchao-int8wo")
    assert compare(folder, PARENT).verdict == "proved"
    tensors = {name: one.copy() for name, one in read_safetensors(folder / "model.safetensors")}
    names = [name for name in tensors if name.endswith("_qdata")]
    tensors |= {
        name.replace("qdata", "act_pre_scale"): np.full(tensors[name].shape[-1], 7, dtype=np.float32) for name in names
    }
    metadata = open_safetensors(folder / "model.safetensors").metadata
    write_safetensors(folder / "model.safetensors", tensors, metadata=metadata)
    assert compare(folder, PARENT).verdict == "refuted"

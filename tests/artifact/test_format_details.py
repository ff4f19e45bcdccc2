"""Settings that the artifacts in tests/data do not have, written by hand in the documented layouts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from mlflow_quantgov.artifact.formats.packing import constant_words
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors
from mlflow_quantgov.errors import ArtifactError, UnknownFormatError

Writer = Callable[..., Path]
RNG = np.random.default_rng(0)
PLAIN = {"model.embed_tokens.weight": RNG.normal(size=(64, 64)).astype(np.float32)}


def dense(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes as one stream of bits per row, in 32-bit words."""
    stream = ((codes[..., None] >> np.arange(bits)) & 1).reshape(len(codes), -1).astype(np.uint8)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    return np.packbits(stream, axis=-1, bitorder="little").view("<i4")


def padded(codes: np.ndarray, bits: int) -> np.ndarray:
    """`32 // bits` codes per word, as compressed-tensors wrote them before 0.20."""
    each = 32 // bits
    filled = np.pad(codes, ((0, 0), (0, -codes.shape[1] % each))).reshape(len(codes), -1, each).astype(np.uint64)
    return (filled << (np.arange(each, dtype=np.uint64) * np.uint64(bits))).sum(axis=2).astype(np.uint32).view("<i4")


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("pack", [dense, padded])
@pytest.mark.parametrize("claims", [True, False])
def test_packed_widths_of_compressed_tensors(model_folder: Writer, bits: int, pack: Any, claims: bool) -> None:
    codes = RNG.integers(0, 2**bits, (64, 576))
    tensors = PLAIN | {
        "l.weight_packed": pack(codes, bits),
        "l.weight_scale": np.ones((64, 18), np.float16),
        "l.weight_shape": np.array([64, 576]),
    }
    weights = {"num_bits": bits, "strategy": "group", "group_size": 32}
    config = {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": weights}}}
    facts = inspect(model_folder(tensors, {"quantization_config": config} if claims else None)).quantization
    assert (facts.bits, facts.group_size, facts.layers[0].shape) == (bits, 32, (64, 576))


def test_static_scales_and_a_quantized_cache_need_calibration(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "static"
    shutil.copytree(artifacts / "ct-w8a8", folder)
    tensors = {name: np.array(one) for name, one in read_safetensors(folder / "model.safetensors")}
    tensors["model.layers.0.self_attn.k_scale"] = np.ones(1, np.float32)
    write_safetensors(folder / "model.safetensors", tensors)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["kv_cache_scheme"] = {"num_bits": 8, "type": "float"}
    (folder / "config.json").write_text(json.dumps(config))
    facts = inspect(folder).quantization
    assert (facts.calibration_required, facts.kv_cache_bits, facts.total_parameters) == (True, 8, 47296)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("second", [True, False])
def test_symmetric_zero_points_of_gptq(model_folder: Writer, bits: int, second: bool) -> None:
    zeros = np.full((4, 64), 2 ** (bits - 1) - (0 if second else 1))
    tensors = PLAIN | {
        "l.qweight": np.ascontiguousarray(dense(RNG.integers(0, 2**bits, (64, 128)), bits).T),
        "l.qzeros": dense(zeros, bits),
        "l.scales": np.ones((4, 64), np.float16),
        "l.g_idx": (np.arange(128) // 32).astype(np.int32),
    }
    assert np.array_equal(constant_words(int(zeros[0, 0]), bits, tensors["l.qzeros"]), tensors["l.qzeros"])
    claim = {"quant_method": "gptq", "bits": bits, "checkpoint_format": "gptq_v2" if second else "gptq", "sym": True}
    facts = inspect(model_folder(tensors, {"quantization_config": claim})).quantization
    assert (facts.bits, facts.group_size, facts.symmetric) == (bits, 32, True)
    tensors["l.qzeros"] = dense(zeros ^ (np.arange(64) == 5), bits)
    other = model_folder(tensors, {"quantization_config": claim | {"sym": False}}, "other")
    assert inspect(other).quantization.symmetric is False


def test_a_last_group_that_is_shorter(model_folder: Writer) -> None:
    tensors = PLAIN | {
        "l.qweight": np.zeros((320 // 8, 64), np.int32),
        "l.qzeros": np.zeros((3, 8), np.int32),
        "l.scales": np.ones((3, 64), np.float16),
    }
    claim = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
    index = {"l.g_idx": (np.arange(320) // 128).astype(np.int32)}
    assert inspect(model_folder(tensors | index, claim)).quantization.group_size == 128
    assert inspect(model_folder(tensors, claim, "bare")).quantization.group_size == 128


def test_widths_that_differ_by_layer(model_folder: Writer) -> None:
    tensors = dict(PLAIN)
    for name, bits, rows in (("a", 4, 256), ("b", 8, 64)):
        tensors[f"{name}.qweight"] = np.zeros((64 * bits // 32, rows), np.int32)
        tensors[f"{name}.qzeros"] = np.zeros((2, rows * bits // 32), np.int32)
        tensors[f"{name}.scales"] = np.ones((2, rows), np.float16)
        tensors[f"{name}.g_idx"] = (np.arange(64) // 32).astype(np.int32)
    claim = {"quant_method": "gptq", "bits": 8, "dynamic": {"a": {"bits": 4}}}
    facts = inspect(model_folder(tensors, {"quantization_config": claim})).quantization
    assert facts.bits == 4
    assert [layer.bits for layer in facts.layers] == [4, 8]
    assert facts.warnings == ("mixed-widths: 4 bit: 16,384 weights, 8 bit: 4,096 weights",)


def test_a_layout_of_awq_that_nobody_knows(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "awq"
    shutil.copytree(artifacts / "awq-w4g32", folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["version"] = "gemx"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownFormatError, match="gemx"):
        inspect(folder)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("weight.quant_map", lambda one: one[::-1]),
        ("weight.absmax", lambda one: one[:-1]),
        ("weight.nested_absmax", lambda one: np.append(one, one)),
        ("weight", lambda one: one[:-1]),
        ("weight.quant_state.bitsandbytes__nf4", lambda one: one[:20]),
    ],
)
def test_parts_of_bitsandbytes_that_do_not_fit(artifacts: Path, tmp_path: Path, part: str, change: Any) -> None:
    folder = tmp_path / "bnb"
    shutil.copytree(artifacts / "bnb-nf4-double", folder)
    tensors = {name: np.array(one) for name, one in read_safetensors(folder / "model.safetensors")}
    name = f"model.layers.0.mlp.up_proj.{part}"
    tensors[name] = np.ascontiguousarray(change(tensors[name]))
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(ArtifactError, match="up_proj"):
        inspect(folder)


def test_a_torchao_kind_that_nobody_knows(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "torchao"
    shutil.copytree(artifacts / "torchao-int8wo", folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"Int8Tensor", b"Int9Tensor"))
    with pytest.raises(ArtifactError, match="Int9Tensor"):
        inspect(folder)


def write_gguf(path: Path, kinds: dict[str, Kind], **metadata: Any) -> Path:
    """A GGUF file whose matrices have the given types; their codes are zeros."""
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "llama"))
    for key, value in metadata.items():
        name = key.replace("__", ".")
        writer.add_string(name, value) if isinstance(value, str) else writer.add_uint32(name, value)
    for name, kind in kinds.items():
        block, size = gguf.constants.GGML_QUANT_SIZES[kind]
        writer.add_tensor(name, np.zeros((32, 256 // block * size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.name[:1] in "QMNT" or kind.name.startswith("IQ")])
def test_every_type_of_ggml_is_read(tmp_path: Path, kind: Kind) -> None:
    facts = inspect(write_gguf(tmp_path / "x.gguf", {"token_embd.weight": kind})).quantization
    block, size = gguf.constants.GGML_QUANT_SIZES[kind]
    assert facts.method == facts.layers[0].type == kind.name
    assert facts.bits_per_weight == pytest.approx(8 * size / block)
    assert facts.bits is not None and facts.bits <= facts.bits_per_weight
    assert facts.quantized_parameters == facts.total_parameters == 32 * 256
    assert facts.layers[0].shape == (32, 256)


@pytest.mark.parametrize(
    ("kinds", "metadata", "expected"),
    [
        ([Kind.Q4_K, Kind.Q6_K], {"general__file_type": 15}, False),
        ([Kind.Q4_K], {"general__file_type": 15, "quantize__imatrix__file": "im.dat"}, True),
        ([Kind.Q8_0], {"general__file_type": 7}, False),
        ([Kind.IQ2_XS], {"general__file_type": 20}, True),
        ([Kind.IQ4_XS], {"general__file_type": 30}, None),
        ([Kind.IQ4_NL, Kind.Q3_K], {"general__file_type": 11}, False),
        ([Kind.Q2_K], {"general__file_type": 21}, True),
    ],
)
def test_what_needed_an_importance_matrix(
    tmp_path: Path, kinds: list[Kind], metadata: dict[str, Any], expected: bool | None
) -> None:
    named = {f"blk.0.{index}.weight": kind for index, kind in enumerate(kinds)}
    assert inspect(write_gguf(tmp_path / "x.gguf", named, **metadata)).quantization.calibration_required is expected


def test_a_fallback_to_wider_types_is_a_warning(tmp_path: Path) -> None:
    facts = inspect(
        write_gguf(tmp_path / "x.gguf", {"a": Kind.Q5_0, "b": Kind.Q5_0}, general__file_type=15)
    ).quantization
    assert (facts.method, facts.bits) == ("Q4_K_M", 5)
    assert facts.warnings == ("file-type-differs: the file calls itself Q4_K_M, most weights are Q5_0",)


def test_a_few_wide_tensors_do_not_carry_a_claim(tmp_path: Path) -> None:
    kinds = {"a": Kind.Q8_0, "b": Kind.Q2_K, "c": Kind.Q2_K}
    facts = inspect(write_gguf(tmp_path / "x.gguf", kinds, general__file_type=7)).quantization
    assert (facts.method, facts.bits) == ("Q2_K", 2)
    assert any(one.startswith("file-type-differs") for one in facts.warnings)


def test_a_split_gguf_is_one_model(tmp_path: Path) -> None:
    for number in range(2):
        path = tmp_path / f"m-0000{number + 1}-of-00002.gguf"
        write_gguf(path, {f"blk.{number}.attn_q.weight": Kind.Q8_0}, split__count=2, split__no=number)
    facts = inspect(tmp_path).quantization
    assert (facts.total_parameters, len(facts.layers)) == (2 * 32 * 256, 2)
    with pytest.raises(ArtifactError, match="one of 2 parts"):
        inspect(tmp_path / "m-00001-of-00002.gguf")
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(ArtifactError, match="1 of 2 parts"):
        inspect(tmp_path)


def test_a_projector_beside_the_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", {"token_embd.weight": Kind.Q4_0})
    write_gguf(tmp_path / "mmproj.gguf", {"v.patch": Kind.Q8_0}, architecture="clip")
    facts = inspect(tmp_path).quantization
    assert facts.method == "Q4_0"
    assert "not-inspected: mmproj.gguf is a projector" in facts.warnings
    alone = inspect(tmp_path / "mmproj.gguf")
    assert not alone.is_language_model
    assert alone.quantization.warnings[-1].startswith("projector-only")

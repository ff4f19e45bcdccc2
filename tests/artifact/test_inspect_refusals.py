"""Contradictions, unknown formats and hostile folders: one clear error, nothing loaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors
from mlflow_quantgov.errors import ArtifactError, UnknownFormatError

Writer = Callable[..., Path]
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
FLOATS = {"model.embed_tokens.weight": np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)}


@pytest.fixture
def changed(artifacts: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of an artifact with entries of its quantization config changed."""

    def change(name: str, **entries: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(artifacts / name, folder)
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] |= entries
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return change


@pytest.mark.parametrize(
    ("name", "entries", "words"),
    [
        ("gptq-w4g32", {"bits": 8}, ["8 bit", "4 bit"]),
        ("gptq-w4g32", {"group_size": 128}, ["group size 128", "group size 32"]),
        ("gptq-w4g32", {"group_size": 16}, ["group size 16", "group size 32"]),
        ("gptq-w4g32", {"group_size": -1}, ["one scale per channel", "group size 32"]),
        ("gptq-w3g32-asym", {"sym": True}, ["symmetric", "zero points"]),
        ("gptq-w4g32", {"quant_method": "awq", "version": "gemm"}, ["awq", "gptq"]),
        ("awq-w4g32", {"bits": 8}, ["8 bit", "4 bit"]),
        ("bnb-nf4-double", {"load_in_4bit": False, "load_in_8bit": True}, ["8 bit", "4 bit"]),
        ("bnb-nf4-double", {"bnb_4bit_quant_type": "fp4"}, ["fp4", "nf4"]),
        ("torchao-int4g32", {"quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, ["8 bit", "4 bit"]),
    ],
)
def test_a_config_that_disagrees_with_its_tensors(
    changed: Callable[..., Path], name: str, entries: dict[str, Any], words: list[str]
) -> None:
    folder = changed(name, **entries)
    with pytest.raises(ArtifactError) as raised:
        inspect(folder)
    assert all(word in raised.value.what for word in words), raised.value.what
    assert raised.value.fix


@pytest.mark.parametrize("layout", ["ct-w4g32", "ct-w8a8"])
def test_compressed_tensors_that_claim_another_width(changed: Callable[..., Path], layout: str) -> None:
    folder = changed(layout)
    config = json.loads((folder / "config.json").read_text())
    scheme = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    scheme["num_bits"] = 12 - scheme["num_bits"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"claims \d bit, its tensors have \d bit"):
        inspect(folder)


def test_int8_storage_of_4_bit_codes_is_4_bit(changed: Callable[..., Path]) -> None:
    folder = changed("ct-w8a8")
    tensors = {name: np.array(one) for name, one in read_safetensors(folder / "model.safetensors")}
    narrow = {k: np.clip(v, -8, 7) if k.endswith("_proj.weight") else v for k, v in tensors.items()}
    write_safetensors(folder / "model.safetensors", narrow)
    with pytest.raises(ArtifactError, match="claims 8 bit, its tensors have 4 bit"):
        inspect(folder)


def test_a_gguf_that_calls_itself_wider_than_it_is(artifacts: Path, tmp_path: Path) -> None:
    data = bytearray((artifacts / "tiny-Q4_0.gguf").read_bytes())
    key = b"general.file_type"
    at = data.index(key) + len(key) + 4
    assert data[at] == 2
    data[at] = 7
    (tmp_path / "claims.gguf").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"Q8_0.*Q4_0"):
        inspect(tmp_path / "claims.gguf")


def test_a_quantization_config_over_plain_floats(model_folder: Writer) -> None:
    folder = model_folder(FLOATS, LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    with pytest.raises(ArtifactError, match="gptq"):
        inspect(folder)


def test_a_leftover_quantize_config_over_plain_floats(model_folder: Writer) -> None:
    folder = model_folder(FLOATS, LLAMA)
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 128}')
    with pytest.raises(ArtifactError, match="claims"):
        inspect(folder)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("vptq", "vptq"), ("quark", "quark"), ("aqlm", "aqlm"), ("brand-new", "brand-new"),
    ],
)  # fmt: skip
def test_formats_known_by_name_are_named(model_folder: Writer, method: str, name: str) -> None:
    folder = model_folder(FLOATS, LLAMA | {"quantization_config": {"quant_method": method}})
    with pytest.raises(UnknownFormatError, match=name):
        inspect(folder)


@pytest.mark.parametrize("method", ["fp8", "fbgemm_fp8", "modelopt", "mxfp4", "hqq", "quanto", "auto-round", "nvfp4"])
def test_a_claim_over_plain_floats(model_folder: Writer, method: str) -> None:
    folder = model_folder(FLOATS, LLAMA | {"quantization_config": {"quant_method": method}})
    with pytest.raises(ArtifactError, match=f"claims the format {method}, its tensors have no matrix packed that way"):
        inspect(folder)


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        ({"a.codebooks": np.zeros((2, 2), np.uint8)}, "aqlm"),
        ({"a.down_proj_blocks": np.zeros((2, 2), np.uint8)}, "unknown"),
        ({"a.weight": np.zeros((2, 2), np.int8)}, "unknown"),
        ({"a.weight": np.zeros((2, 2), np.int32), "b.weight": np.zeros((2, 2), np.float32)}, "unknown"),
    ],
)
def test_packed_tensors_without_a_config_are_not_full_precision(
    model_folder: Writer, tensors: dict[str, np.ndarray], name: str
) -> None:
    with pytest.raises(UnknownFormatError, match=name):
        inspect(model_folder(tensors, LLAMA))


def test_packed_weights_do_not_hide_behind_the_name_of_a_mask(model_folder: Writer) -> None:
    packed = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    with pytest.raises(UnknownFormatError):
        inspect(model_folder(FLOATS | {"h.0.attn.bias": packed}, LLAMA))
    mask = np.tril(np.ones((1, 1, 8, 8), dtype=np.bool_))
    kept = inspect(model_folder(FLOATS | {"h.0.attn.bias": mask}, LLAMA, "masked")).quantization
    assert (kept.format, kept.total_parameters) == ("full-precision", 32 * 64)


@pytest.mark.parametrize("file", ["model.onnx", "openvino_model.xml"])
def test_a_graph_that_is_none(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"\x08\x07")
    with pytest.raises(ArtifactError, match="not a sound model file"):
        inspect(tmp_path)


def test_the_own_format_of_onnxruntime_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.ort").write_bytes(b"x")
    with pytest.raises(UnknownFormatError, match=r"\.ort"):
        inspect(tmp_path)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_a_pickle_is_refused_and_not_opened(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(ArtifactError, match="pickle"):
        inspect(tmp_path)
    with pytest.raises(ArtifactError, match="pickle"):
        inspect(tmp_path / file)
    assert not Path("opened").exists()


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no model weights"):
        inspect(tmp_path)
    with pytest.raises(ArtifactError, match="does not exist"):
        inspect(tmp_path / "nothing")


def test_other_weights_in_the_folder_are_mentioned(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / "parent-bf16", folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    facts = inspect(folder).quantization
    assert facts.total_parameters == 47296
    assert [one.split(" also")[0] for one in facts.warnings] == [
        "not-inspected: consolidated.safetensors",
        "not-inspected: pytorch_model.bin",
    ]


def test_two_models_in_one_folder(artifacts: Path, tmp_path: Path) -> None:
    for name in ("tiny-Q4_0.gguf", "tiny-Q8_0.gguf"):
        shutil.copy(artifacts / name, tmp_path / name)
    with pytest.raises(ArtifactError, match="several models"):
        inspect(tmp_path)
    (tmp_path / "tiny-Q8_0.gguf").unlink()
    assert inspect(tmp_path).quantization.method == "Q4_0"
    shutil.copy(artifacts / "parent-bf16" / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match="several models"):
        inspect(tmp_path)


def test_links_out_of_the_folder_are_refused(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(artifacts / "parent-bf16" / "model.safetensors")
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        inspect(folder)


@pytest.mark.parametrize("kind", ["dangling", "folder", "pipe"])
def test_odd_entries_are_refused(artifacts: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / "parent-bf16", folder)
    if kind == "dangling":
        (folder / "link").symlink_to(folder / "gone")
    elif kind == "folder":
        (folder / "inner").mkdir()
        (folder / "link").symlink_to(folder / "inner")
    else:
        os.mkfifo(folder / "pipe")
    with pytest.raises(ArtifactError):
        inspect(folder)


def test_links_inside_the_folder_are_fine(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / "parent-bf16", folder)
    (folder / "model.safetensors").rename(folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    assert inspect(folder).quantization.format == "full-precision"


@pytest.mark.parametrize("shard", ["../../elsewhere.safetensors", "/etc/passwd", "..", "gone.safetensors"])
def test_an_index_may_only_name_files_of_the_folder(artifacts: Path, tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / "parent-sharded", folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["lm_head.weight"] = shard
    path.write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match="index"):
        inspect(folder)


def test_a_missing_shard_and_a_lone_shard(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / "parent-sharded", folder)
    shards = sorted(folder.glob("*.safetensors"))
    with pytest.raises(ArtifactError, match="one of 4 parts"):
        inspect(shards[0])
    shards[1].unlink()
    with pytest.raises(ArtifactError, match="not there"):
        inspect(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ArtifactError, match="numbered parts"):
        inspect(folder)


@pytest.mark.parametrize(("key", "value"), [("vocab_size", 4096), ("num_hidden_layers", 2), ("hidden_size", 32)])
def test_a_config_that_disagrees_with_the_shapes(artifacts: Path, tmp_path: Path, key: str, value: int) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / "parent-bf16", folder)
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"config\.json"):
        inspect(folder)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1, "a": 2}', "\xff", "[" * 100_000])
def test_a_config_that_is_no_object(model_folder: Writer, text: str) -> None:
    folder = model_folder(FLOATS)
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        inspect(folder)


def test_a_claimed_layer_shape_that_does_not_fit(changed: Callable[..., Path]) -> None:
    folder = changed("gptq-w4g32")
    tensors = {name: np.array(one) for name, one in read_safetensors(folder / "model.safetensors")}
    tensors["model.layers.0.mlp.up_proj.g_idx"][0] = 99
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(ArtifactError, match=r"up_proj of gptq-w4g32 is no sound GPTQ layer"):
        inspect(folder)


ODD = (None, True, -3, 10**40, float("nan"), "odd", [[]], {"a": {}})
FOLDERS = (
    "gptq-w4g32", "awq-w4g32", "ct-w4g32-asym", "ct-w8a8", "bnb-nf4-double", "torchao-int4g32",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_odd_values_in_a_config_are_read_or_refused(artifacts: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(artifacts / name, folder)
    config = json.loads((folder / "config.json").read_text())
    holders = [config]
    for holder in holders:
        holders.extend(one for one in holder.values() if isinstance(one, dict))
    for holder in holders:
        for key, kept in list(holder.items()):
            for odd in ODD:
                holder[key] = odd
                (folder / "config.json").write_text(json.dumps(config))
                try:
                    inspect(folder)
                except ArtifactError as error:
                    assert error.fix
            holder[key] = kept


def test_a_device_or_a_pipe_is_called_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((Path("/dev/null"), "a device"), (tmp_path / "pipe", "a pipe")):
        with pytest.raises(ArtifactError, match=f"is {kind}, neither a file nor a folder"):
            inspect(path)


def test_weights_that_a_config_names_and_nobody_inspected(model_folder: Writer) -> None:
    """transformers loads what `transformers_weights` names before any other file."""
    folder = model_folder(FLOATS, LLAMA | {"transformers_weights": "other.safetensors"})
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    with pytest.raises(ArtifactError, match="transformers_weights"):
        inspect(folder)


def test_an_index_that_a_config_names_before_the_one_file(model_folder: Writer) -> None:
    folder = model_folder(FLOATS, LLAMA | {"transformers_weights": "model.safetensors.index.json"})
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(FLOATS, "other.safetensors")}))
    with pytest.raises(ArtifactError, match="transformers_weights"):
        inspect(folder)
    (folder / "model.safetensors").unlink()
    assert inspect(folder).quantization.format == "full-precision"


def test_the_usual_weights_may_be_named(model_folder: Writer) -> None:
    folder = model_folder(FLOATS, LLAMA | {"transformers_weights": "model.safetensors"})
    assert inspect(folder).quantization.format == "full-precision"

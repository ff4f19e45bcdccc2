"""Every dequantizer against the library that wrote the numbers, and the packing against its own inverse."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest
from blocks import PROJECTIONS, parent_weight, whole
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.dequantize.gguf_blocks import DECODERS
from mlflow_quantgov.artifact.dequantize.gguf_codebooks import CODEBOOKS, from_tables
from mlflow_quantgov.artifact.dequantize.numbers import E2M1, E4M3, E5M2, lookup, uniform
from mlflow_quantgov.artifact.dequantize.words import nibbles, unpack, unpack_padded
from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors
from mlflow_quantgov.artifact.tensors.ggml_types import BY_NAME
from mlflow_quantgov.errors import ArtifactError


def make_script() -> ModuleType:
    """The script that made the artifacts."""
    spec = importlib.util.spec_from_file_location("make", Path(__file__).parents[1] / "data" / "artifacts" / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(bits=st.integers(1, 8), data=st.data())
def test_codes_come_back_from_a_stream_of_bits(bits: int, data: st.DataObject) -> None:
    rows, words = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)) * bits
    count = words * 32 // bits
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=rows * count, max_size=rows * count)))
    codes = codes.reshape(rows, count).astype(np.uint32)
    packed = make_script().pack_words(codes, bits, axis=1)
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    assert np.array_equal(unpack(packed, bits, start, stop), codes[:, start:stop])
    assert np.array_equal(unpack(packed.view("<i2"), bits, start, stop), codes[:, start:stop])


@given(bits=st.integers(1, 8), data=st.data())
def test_codes_come_back_from_padded_words(bits: int, data: st.DataObject) -> None:
    per_word = 32 // bits
    count = data.draw(st.integers(1, 3 * per_word))
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count)), dtype=np.uint64)
    filled = np.concatenate([codes, np.zeros(-count % per_word, dtype=np.uint64)]).reshape(-1, per_word)
    words = (filled << (np.arange(per_word, dtype=np.uint64) * bits)).sum(axis=1).astype("<u4").view("<i4")
    assert np.array_equal(unpack_padded(words[None], bits, count)[0], codes)


@given(st.binary(min_size=1, max_size=40))
def test_nibbles_of_a_byte_in_both_orders(data: bytes) -> None:
    packed = np.frombuffer(data, dtype=np.uint8)
    low = nibbles(packed)
    assert np.array_equal(low[0::2] | low[1::2] << 4, packed)
    assert np.array_equal(nibbles(packed, low_first=False).reshape(-1, 2)[:, ::-1].reshape(-1), low)


def test_float_tables_are_those_of_ml_dtypes() -> None:
    import ml_dtypes

    codes = np.arange(256, dtype=np.uint8)
    for table, kind in ((E4M3, ml_dtypes.float8_e4m3fn), (E5M2, ml_dtypes.float8_e5m2)):
        expected = codes.view(kind).astype(np.float32)
        finite = np.isfinite(expected)
        assert np.array_equal(table[finite], expected[finite])
        assert np.isnan(table[~finite]).all()
    assert np.array_equal(E2M1, codes[:16].view(ml_dtypes.float4_e2m1fn).astype(np.float32))


@given(
    levels=st.lists(st.integers(-50, 50), min_size=2, max_size=16, unique=True),
    scale=st.sampled_from([-2.0, -0.25, 0.5, 3.0]),
    part=st.floats(0, 0.99),
)
def test_what_lies_in_a_cell_is_nearest_to_its_level(levels: list[int], scale: float, part: float) -> None:
    table = np.array(levels, dtype=np.float32)
    codes = np.arange(len(levels), dtype=np.uint8)[None]
    block = lookup(codes, table, np.full((1, 1), scale, dtype=np.float32))
    assert block.below is not None and block.above is not None
    for cell, sign in ((block.below, -1), (block.above, 1)):
        for code in range(len(levels)):
            width = cell[0, code]
            at = block.values[0, code] + sign * part * (width if np.isfinite(width) else 1000)
            assert np.argmin(np.abs(table * scale - at)) == code
    assert np.isinf(block.below).sum() == np.isinf(block.above).sum() == 1


@given(scale=st.sampled_from([-1.5, 0.25, 2.0]), offset=st.integers(-3, 3))
def test_cells_of_a_uniform_grid(scale: float, offset: int) -> None:
    codes = np.arange(-4, 4, dtype=np.int8)[None]
    block = uniform(codes, np.full((1, 1), scale, dtype=np.float32), np.float32(offset), -4, 3)
    assert np.array_equal(block.values, codes * np.float32(scale) + offset)
    assert block.below is not None and block.above is not None
    lowest, highest = int(block.values.argmin()), int(block.values.argmax())
    assert np.isinf(block.below[0]).nonzero()[0].tolist() == [lowest]
    assert np.isinf(block.above[0]).nonzero()[0].tolist() == [highest]
    assert np.nanmin(block.below) == abs(scale) / 2


def read_by_llama_cpp(data: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Blocks [n, bytes] as llama.cpp's own function reads them, [n, weights]."""
    import ctypes

    from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import library

    # Its names: dequantize_row_q4_K, dequantize_row_iq2_xs.
    name = kind if kind.endswith("_K") else kind.lower()
    function = getattr(library().c, f"dequantize_row_{name[0].lower()}{name[1:]}")
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    blocks, values = np.ascontiguousarray(data), np.zeros((len(data), BY_NAME[kind].block), dtype=np.float32)
    function(blocks.ctypes.data, values.ctypes.data, values.size)
    return values


@pytest.mark.parametrize("kind", sorted(DECODERS | CODEBOOKS))
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_block_of_ggml_is_read_as_llama_cpp_reads_it(kind: str, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, (7, BY_NAME[kind].bytes), dtype=np.uint8)
    if kind == "MXFP4":
        data[:, 0] = data[:, 0] % 200 + 2
    expected = read_by_llama_cpp(data, kind)
    with np.errstate(all="ignore"):
        found = from_tables(data, kind).values if kind in CODEBOOKS else DECODERS[kind](data).values
    np.testing.assert_allclose(found, expected, rtol=2.0**-22)


def test_every_type_that_files_hold_is_read() -> None:
    stored = {name for name, one in BY_NAME.items() if one.bits is not None}
    # Products of activations only.
    assert stored - {"Q8_1", "Q8_K"} == DECODERS.keys() | CODEBOOKS.keys()


@pytest.mark.parametrize("kind", sorted(DECODERS.keys() - {"Q1_0", "Q2_0"}))
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_block_of_ggml_is_read_as_gguf_reads_it(kind: str, seed: int) -> None:
    block, width = gguf.GGML_QUANT_SIZES[Kind[kind]]
    data = np.random.default_rng(seed).integers(0, 256, (7, width), dtype=np.uint8)
    if kind == "MXFP4":
        data[:, 0] = data[:, 0] % 200 + 2
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(data.reshape(1, -1), Kind[kind]).reshape(7, block)
        found = DECODERS[kind](data).values
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_numbers_lie_in_the_cells_of_their_codes(kind: str) -> None:
    from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import quantized

    weights = np.random.default_rng(3).standard_normal((8, 256)).astype(np.float32)
    block = DECODERS[kind](quantized(weights, kind).reshape(-1, BY_NAME[kind].bytes))
    assert block.below is not None and block.above is not None
    difference = weights.reshape(block.values.shape) - block.values
    # A weight at the border of its cell is up to half a step larger than its level.
    width = np.where(np.isinf(block.below), block.above, block.below)
    slack = (np.abs(block.values) + width) * 2.0**-10
    assert (difference <= block.above + slack).all() and (difference >= -block.below - slack).all()


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj"])
def test_gguf_rows_come_in_hugging_face_order(artifacts: Path, kind: str, part: str) -> None:
    name = f"model.layers.0.self_attn.{part}.weight"
    weight = parent_weight(artifacts, name)
    found = whole(matrices(artifacts / f"tiny-{kind}.gguf")[name]).values
    if kind == "BF16":
        expected = weight
    elif kind == "F16":
        expected = weight.astype(np.float16).astype(np.float32)
    else:
        expected = gguf.quants.dequantize(gguf.quants.quantize(weight, Kind[kind]), Kind[kind])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("folder", "settings"),
    [
        ("gptq-w4g32", (4, 32, True, False)),
        ("gptq-w3g32-asym", (3, 32, False, False)),
        ("gptq-w8-channel", (8, None, True, False)),
        ("gptq-w2g16-v2", (2, 16, True, False)),
        ("gptq-w4g32-desc", (4, 32, True, True)),
        ("awq-w4g32", (4, 32, False, False)),
    ],
)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gptq_and_awq_by_formula(
    artifacts: Path, folder: str, settings: tuple[int, int | None, bool, bool], projection: str
) -> None:
    bits, group, symmetric, act_order = settings
    name = f"model.layers.0.{projection}.weight"
    weight = parent_weight(artifacts, name)
    columns = weight.shape[1]
    order = np.random.default_rng(1).permutation(columns) if act_order else np.arange(columns)
    size = group or columns
    codes, scales, zeros = make_script().quantize(weight[:, order], bits, size, symmetric)
    stored = scales.astype(np.float16).astype(np.float32)
    shifted = codes.astype(np.float32).reshape(len(weight), -1, size) - zeros[:, :, None]
    expected = np.empty_like(weight)
    expected[:, order] = (shifted * stored[:, :, None]).reshape(weight.shape)
    found = whole(matrices(artifacts / folder)[name])
    np.testing.assert_allclose(found.values, expected, rtol=1e-6, atol=1e-9)


def test_awq_without_zero_points_and_gptq_without_index(artifacts: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    before = whole(matrices(artifacts / "gptq-w4g32")[name]).values
    tensors = {
        key: np.array(one)
        for key, one in read_safetensors(artifacts / "gptq-w4g32" / "model.safetensors")
        if not key.endswith("g_idx")
    }
    write_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_bytes((artifacts / "gptq-w4g32" / "config.json").read_bytes())
    assert np.array_equal(whole(matrices(tmp_path)[name]).values, before)


@pytest.mark.parametrize("folder", ["bnb-nf4-double", "bnb-fp4", "bnb-int8"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_bitsandbytes_by_its_own_functions(artifacts: Path, folder: str, projection: str) -> None:
    import torch
    from bitsandbytes import functional
    from safetensors.torch import load_file

    name = f"model.layers.0.{projection}.weight"
    tensors = load_file(artifacts / folder / "model.safetensors")
    if folder == "bnb-int8":
        scale = tensors[name.replace("weight", "SCB")]
        expected = functional.int8_vectorwise_dequant(tensors[name], scale)
    else:
        parts = {key.removeprefix(f"{name}."): one for key, one in tensors.items() if key.startswith(f"{name}.")}
        state = functional.QuantState.from_dict(parts, device=torch.device("cpu"))
        state.dtype, shape = torch.float32, state.shape
        # Its CPU kernel (0.50.2) takes wrong blocks where 64 does not divide a row: it is asked for the flat matrix.
        state.shape = torch.Size((shape.numel() // 64, 64))
        expected = functional.dequantize_4bit(tensors[name], state).reshape(shape)
    found = whole(matrices(artifacts / folder)[name]).values
    np.testing.assert_allclose(found, expected.float().numpy(), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("folder", ["ct-w4g32", "ct-w4g32-asym", "ct-w3-channel", "ct-w8a8", "ct-fp8-tensor"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_compressed_tensors_by_its_own_compressors(artifacts: Path, folder: str, projection: str) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme
    from safetensors.torch import load_file

    stem = f"model.layers.0.{projection}."
    claim = json.loads((artifacts / folder / "config.json").read_text())["quantization_config"]
    group = claim["config_groups"]["group_0"]
    state = {key.removeprefix(stem): one for key, one in load_file(artifacts / folder / "model.safetensors").items()
             if key.startswith(stem)}  # fmt: skip
    scheme = QuantizationScheme(targets=["Linear"], weights=group["weights"])
    expected = BaseCompressor.get_value_from_registry(claim["format"]).decompress(state, scheme)["weight"]
    found = whole(matrices(artifacts / folder)[f"{stem}weight"]).values
    np.testing.assert_allclose(found, expected.float().numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("layout", "group", "strategy"),
    [("nvfp4-pack-quantized", 16, "tensor_group"), ("mxfp4-pack-quantized", 32, "group")],
)
def test_float4_of_compressed_tensors(artifacts: Path, tmp_path: Path, layout: str, group: int, strategy: str) -> None:
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weights = QuantizationArgs(num_bits=4, type="float", strategy=strategy, group_size=group, symmetric=True,
                               scale_dtype=torch.uint8 if group == 32 else torch.float8_e4m3fn)  # fmt: skip
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    name = "model.layers.0.self_attn.q_proj.weight"
    weight = torch.from_numpy(parent_weight(artifacts, name))
    most = weight.reshape(64, -1, group).abs().amax(2)
    state = {"weight": weight, "weight_scale": torch.exp2(torch.ceil(torch.log2(most / 6)))}
    if group == 16:
        whole_scale = (448 * 6 / weight.abs().max()).reshape(1)
        state |= {
            "weight_scale": (most / 6 * whole_scale).to(torch.float8_e4m3fn).float(),
            "weight_global_scale": whole_scale,
        }
    compressor = BaseCompressor.get_value_from_registry(layout)
    packed = compressor.compress(state, scheme)
    expected = compressor.decompress(packed, scheme)["weight"].float().numpy()

    from safetensors.torch import load_file, save_file

    tensors = load_file(artifacts / "parent-bf16" / "model.safetensors")
    tensors = {key: one for key, one in tensors.items() if key != name}
    tensors |= {f"{name.removesuffix('weight')}{part}": one.contiguous() for part, one in packed.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((artifacts / "parent-bf16" / "config.json").read_text())
    claim = {"quant_method": "compressed-tensors", "format": layout, "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float", "strategy": strategy,
                                                       "group_size": group, "symmetric": True}}}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": claim}))
    found = matrices(tmp_path)[name]
    assert found.kind == ("mxfp4" if group == 32 else "nvfp4")
    # The library computes in bfloat16.
    np.testing.assert_allclose(whole(found).values, expected, rtol=2.0**-7, atol=1e-9)
    assert np.linalg.norm(whole(found).values - weight.numpy()) < 0.2 * np.linalg.norm(weight.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["torchao-int8wo", "torchao-int8dyn", "torchao-int4g32", "torchao-float8wo"])
def test_torchao_by_its_own_subclasses(artifacts: Path, folder: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(artifacts / folder, dtype="auto")
    found = matrices(artifacts / folder)
    layer = model.model.layers[0]
    for projection in PROJECTIONS:
        weight = layer.get_submodule(projection).weight
        expected = weight.dequantize().float().numpy()
        values = whole(found[f"model.layers.0.{projection}.weight"]).values
        # It rounds its product to bfloat16.
        np.testing.assert_allclose(values, expected, rtol=2.0**-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["mx-fp8", "mx-fp4", "nvfp4", "nvfp4-global"])
def test_torchao_blocks_by_their_own_subclasses(artifacts: Path, tmp_path: Path, kind: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    name, stem = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj"
    weight = torch.from_numpy(parent_weight(artifacts, name))
    if kind.startswith("mx"):
        narrow = torch.float8_e4m3fn if kind == "mx-fp8" else torch.float4_e2m1fn_x2
        tensor: Any = MXTensor.to_mx(weight, narrow, block_size=32)
        data, block, label = tensor.qdata, 32, "MXTensor"
    else:
        scale = per_tensor_amax_to_scale(weight.abs().max()) if kind.endswith("global") else None
        tensor = NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=scale)
        data, block, label = tensor.qdata, 16, "NVFP4Tensor"
    stored = {
        key: one for key, one in load_file(artifacts / "parent-bf16" / "model.safetensors").items() if key != name
    }
    stored |= {f"{stem}._weight_qdata": data.contiguous().view(torch.uint8) if kind != "mx-fp8" else data.contiguous(),
               f"{stem}._weight_scale": tensor.scale.contiguous()}  # fmt: skip
    if kind.endswith("global"):
        stored[f"{stem}._weight_per_tensor_scale"] = tensor.per_tensor_scale.reshape(1)
    described = json.dumps({"_type": label, "_data": {"block_size": block}})
    save_file(stored, tmp_path / "model.safetensors", metadata={name: described})
    config = json.loads((artifacts / "parent-bf16" / "config.json").read_text())
    claim = {"quant_method": "torchao", "quant_type": {"default": {"_type": label.replace("Tensor", "Config")}}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": claim}))
    expected = tensor.dequantize(torch.float32).numpy()
    np.testing.assert_allclose(whole(matrices(tmp_path)[name]).values, expected, rtol=1e-6, atol=1e-9)


def test_a_type_without_a_decoder_says_so(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 292), dtype=np.uint8), raw_dtype=Kind.Q8_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = matrices(tmp_path / "x.gguf")["model.embed_tokens.weight"]
    assert found.problem is not None and "Q8_K" in found.problem
    with pytest.raises(ArtifactError, match="cannot be dequantized here"):
        found.read(0, 1)


def test_tables_that_are_not_installed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 66), dtype=np.uint8), raw_dtype=Kind.IQ2_XXS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = matrices(tmp_path / "x.gguf")["model.embed_tokens.weight"]
    assert found.problem is None and np.array_equal(found.block(0, 2).values, np.zeros((2, 256)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = matrices(tmp_path / "x.gguf")["model.embed_tokens.weight"]
    assert found.problem is not None and "pip install 'mlflow-quantgov[gguf]'" in found.problem


@pytest.mark.parametrize(("name", "rows"), [("blk.0.ffn_up", None), ("blk.0.ffn_up_exps", 2)])
def test_factors_of_whole_matrices_belong_to_them(tmp_path: Path, name: str, rows: int | None) -> None:
    """NVFP4 files of models that were quantized elsewhere keep one factor per matrix, or per expert, beside it."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import quantized

    shape = (4, 128) if rows is None else (rows, 4, 128)
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    factors = np.array([0.25] if rows is None else [0.25, -3], dtype=np.float32)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "qwen3moe")
    writer.add_tensor(f"{name}.weight", quantized(weight, "NVFP4"), raw_dtype=Kind.NVFP4)
    writer.add_tensor(f"{name}.scale", factors)
    writer.add_tensor(f"{name}.input_scale", np.ones_like(factors))
    writer.add_tensor("token_embd.weight", np.zeros((4, 128), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {key: one for key, one in matrices(tmp_path / "x.gguf").items() if "mlp" in key}
    assert len(found) == len(factors)
    for one, stored, factor in zip(found.values(), weight.reshape(-1, 4, 128), factors, strict=True):
        block = whole(one)
        difference = stored * factor - block.values
        assert np.linalg.norm(difference) < 0.12 * np.linalg.norm(stored * factor)
        assert block.below is not None and block.above is not None
        assert (difference <= block.above * 1.001).all() and (difference >= -block.below * 1.001).all()


def test_experts_of_a_stack_are_matrices_of_their_own(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).standard_normal((3, 4, 32)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "qwen3moe")
    writer.add_tensor("blk.0.ffn_up_exps.weight", gguf.quants.quantize(stack, Kind.Q8_0), raw_dtype=Kind.Q8_0)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = matrices(tmp_path / "x.gguf")
    for expert in range(3):
        values = whole(found[f"model.layers.0.mlp.experts.{expert}.up_proj.weight"]).values
        np.testing.assert_allclose(values, stack[expert], atol=0.02)

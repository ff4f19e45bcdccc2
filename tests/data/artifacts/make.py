"""Makes the small artifacts of this folder: `python tests/data/artifacts/make.py [NAME ...]` (without names: all).

One tiny Llama with random weights (hidden 64, one layer, vocabulary 128), written by transformers, and what real tools
make of it: bitsandbytes, torchao and compressed-tensors' own compressors; gguf's quantizer and writer. GPTQ and AWQ are
packed here with numpy, in the layouts of AutoGPTQ and AutoAWQ (their packages do not run with today's libraries).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PARENT = HERE / "parent-bf16"
_LINEAR = "_proj.weight"
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def make_parent() -> None:
    """A bf16 Llama, by transformers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=128, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(PARENT)


def make_sharded() -> None:
    """The parent in several files with an index, by transformers."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(PARENT, dtype=torch.bfloat16)
    model.save_pretrained(HERE / "parent-sharded", max_shard_size="30KB")


def make_dequantized() -> None:
    """The parent's linear layers rounded to 4 bit in groups of 32 and written back as bf16."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(PARENT, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(_LINEAR):
                codes, scales, _ = quantize(weight.float().numpy(), bits=4, group=32, symmetric=True)
                centred = codes.astype(np.float32).reshape(weight.shape[0], -1, 32) - 8
                weight.copy_(torch.from_numpy((centred * scales[:, :, None]).reshape(weight.shape)))
    model.save_pretrained(HERE / "dequantized-bf16")


def make_bitsandbytes() -> None:
    """NF4 with double quantization, FP4 without, and LLM.int8(), by transformers and bitsandbytes."""
    from transformers import BitsAndBytesConfig

    save_quantized(
        "bnb-nf4-double",
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    )
    save_quantized("bnb-fp4", BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4"))
    save_quantized("bnb-int8", BitsAndBytesConfig(load_in_8bit=True))


def make_torchao() -> None:
    """int8 weight-only and dynamic, 4-bit codes in bytes, float8, by transformers and torchao."""
    import torch
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerGroup,
    )
    from transformers import TorchAoConfig

    save_quantized("torchao-int8wo", TorchAoConfig(Int8WeightOnlyConfig(version=2)))
    save_quantized("torchao-int8dyn", TorchAoConfig(Int8DynamicActivationInt8WeightConfig(version=2)))
    save_quantized("torchao-int4g32", TorchAoConfig(IntxWeightOnlyConfig(torch.int4, PerGroup(32), version=2)))
    save_quantized("torchao-float8wo", TorchAoConfig(Float8WeightOnlyConfig(version=2)))


def save_quantized(name: str, config: object) -> None:
    """Load the parent with a quantizer of transformers and save what comes out."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        PARENT, dtype=torch.bfloat16, quantization_config=config, device_map="cpu"
    )
    model.save_pretrained(HERE / name)


def make_compressed_tensors() -> None:
    """Packed 4 and 3 bit, symmetric and not; int8 with dynamic activations; float8; NVFP4: by its own compressors."""
    for name, layout, settings in (
        ("ct-w4g32", "pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": True}),
        ("ct-w4g32-asym", "pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False}),
        ("ct-w3-channel", "pack-quantized", {"num_bits": 3, "strategy": "channel", "symmetric": True}),
        ("ct-w8a8", "int-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": True}),
        ("ct-fp8-tensor", "float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}),
    ):
        compress(name, layout, settings)


def compress(name: str, layout: str, settings: dict[str, object]) -> None:
    """Write a folder whose linear layers went through one compressor of compressed-tensors."""
    import compressed_tensors
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams
    from safetensors.torch import load_file, save_file

    weights = QuantizationArgs(**settings)
    activations = None
    if layout != "pack-quantized":
        activations = QuantizationArgs(num_bits=8, type=weights.type, strategy="token", dynamic=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=activations)
    compressor = BaseCompressor.get_value_from_registry(layout)
    tensors: dict[str, torch.Tensor] = {}
    for key, tensor in load_file(PARENT / "model.safetensors").items():
        if not key.endswith(_LINEAR):
            tensors[key] = tensor
            continue
        size = weights.group_size or (tensor.shape[1] if weights.strategy == "channel" else tensor.numel())
        blocks = tensor.float().reshape(-1, size)
        scale, zero = calculate_qparams(blocks.amin(1), blocks.amax(1), weights)
        rows = 1 if weights.strategy == "tensor" else tensor.shape[0]
        shape = (1,) if rows == 1 else (rows, -1)
        state = {
            "weight": tensor.float(),
            "weight_scale": scale.reshape(shape),
            "weight_zero_point": zero.reshape(shape),
        }
        stem = key.removesuffix("weight")
        tensors |= {f"{stem}{part}": one.contiguous() for part, one in compressor.compress(state, scheme).items()}
    folder = start(name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    group = {"targets": ["Linear"], "weights": weights.model_dump(mode="json"), "format": layout}
    group["input_activations"] = activations.model_dump(mode="json") if activations else None
    claim(
        folder,
        {
            "quant_method": "compressed-tensors",
            "format": layout,
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
            "kv_cache_scheme": None,
            "version": compressed_tensors.__version__,
        },
    )


def make_gguf() -> None:
    """F16, BF16, Q8_0, Q4_0 and Q4_1 files, by gguf's quantizer and writer."""
    import gguf
    from gguf import GGMLQuantizationType as Kind
    from gguf import LlamaFileType

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for label, kind, file_type in (
        ("F16", Kind.F16, LlamaFileType.MOSTLY_F16),
        ("BF16", Kind.BF16, LlamaFileType.MOSTLY_BF16),
        ("Q8_0", Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
        ("Q4_0", Kind.Q4_0, LlamaFileType.MOSTLY_Q4_0),
        ("Q4_1", Kind.Q4_1, LlamaFileType.MOSTLY_Q4_1),
    ):
        writer = gguf.GGUFWriter(HERE / f"tiny-{label}.gguf", "llama")
        writer.add_block_count(1)
        writer.add_embedding_length(64)
        writer.add_feed_forward_length(96)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_file_type(file_type)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"t{index}" for index in range(128)])
        for name, array in parent_arrays().items():
            own = names.get_name(name, try_suffixes=(".weight",))
            # As llama.cpp's converter does for Llama: it rotates neighbouring rows, Hugging Face the halves of a head.
            for part, heads in (("q_proj", 4), ("k_proj", 2)):
                if part in name:
                    array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
            if array.ndim == 1:
                writer.add_tensor(own, array)
            else:
                writer.add_tensor(own, gguf.quants.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def make_gptq() -> None:
    """AutoGPTQ's layout: 4 bit group 32; 3 bit asymmetric; 8 bit per channel; 4 bit act-order; version 2."""
    for name, bits, group, symmetric, act_order, second in (
        ("gptq-w4g32", 4, 32, True, False, False),
        ("gptq-w3g32-asym", 3, 32, False, False, False),
        ("gptq-w8-channel", 8, -1, True, False, False),
        ("gptq-w2g16-v2", 2, 16, True, False, True),
        ("gptq-w4g32-desc", 4, 32, True, True, False),
    ):
        tensors: dict[str, np.ndarray] = {}
        for key, array in parent_arrays().items():
            if key.endswith(_LINEAR):
                tensors |= pack_gptq(key.removesuffix("weight"), array, bits, group, symmetric, act_order, second)
            else:
                tensors[key] = array.astype(np.float16)
        folder = start(name)
        write(folder, tensors)
        claim(
            folder,
            {
                "bits": bits, "group_size": group, "sym": symmetric, "desc_act": act_order, "quant_method": "gptq",
                "checkpoint_format": "gptq_v2" if second else "gptq", "meta": {"quantizer": ["made-by-hand:1.0"]},
            },
        )  # fmt: skip


def pack_gptq(
    stem: str, weight: np.ndarray, bits: int, group: int, symmetric: bool, act_order: bool, second: bool
) -> dict[str, np.ndarray]:
    """One linear layer, [out, in], in GPTQ's tensors."""
    columns = weight.shape[1]
    size = columns if group < 0 else group
    order = np.random.default_rng(1).permutation(columns) if act_order else np.arange(columns)
    codes, scales, zeros = quantize(weight[:, order], bits, size, symmetric)
    unordered = np.empty_like(codes)
    unordered[:, order] = codes
    index = np.empty(columns, dtype=np.int32)
    index[order] = np.arange(columns) // size
    return {
        f"{stem}qweight": pack_words(unordered.T, bits, axis=0),
        f"{stem}qzeros": pack_words((zeros - (0 if second else 1)).T & (2**bits - 1), bits, axis=1),
        f"{stem}scales": scales.T.astype(np.float16),
        f"{stem}g_idx": index,
    }


def make_awq() -> None:
    """AutoAWQ's GEMM layout: 4 bit group 32 with zero points."""
    tensors: dict[str, np.ndarray] = {}
    for key, array in parent_arrays().items():
        if not key.endswith(_LINEAR):
            tensors[key] = array.astype(np.float16)
            continue
        stem = key.removesuffix("weight")
        codes, scales, zeros = quantize(array, 4, 32, symmetric=False)
        tensors[f"{stem}qweight"] = pack_words(awq_order(codes.T), 4, axis=1)
        tensors[f"{stem}qzeros"] = pack_words(awq_order(zeros.T), 4, axis=1)
        tensors[f"{stem}scales"] = scales.T.astype(np.float16)
    folder = start("awq-w4g32")
    write(folder, tensors)
    claim(folder, {"bits": 4, "group_size": 32, "zero_point": True, "version": "gemm", "quant_method": "awq"})


def awq_order(codes: np.ndarray) -> np.ndarray:
    """AWQ interleaves each eight outputs of a word."""
    return np.ascontiguousarray(codes.reshape(codes.shape[0], -1, 8)[:, :, _AWQ_ORDER].reshape(codes.shape))


def quantize(weight: np.ndarray, bits: int, group: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes [out, in], scales [out, groups] and zero points [out, groups], rounded to nearest."""
    blocks = weight.astype(np.float32).reshape(weight.shape[0], -1, group)
    top = 2**bits - 1
    if symmetric:
        scales = np.abs(blocks).max(axis=2) / (2 ** (bits - 1) - 0.5)
        zeros = np.full_like(scales, 2 ** (bits - 1))
    else:
        low, high = np.minimum(blocks.min(axis=2), 0), np.maximum(blocks.max(axis=2), 0)
        scales = (high - low) / top
        zeros = np.rint(-low / scales)
    codes = np.clip(np.rint(blocks / scales[:, :, None]) + zeros[:, :, None], 0, top)
    return codes.reshape(weight.shape).astype(np.uint32), scales, zeros.astype(np.uint32)


def pack_words(codes: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """Codes as one stream of bits along an axis, lowest first, cut into 32-bit words."""
    moved = np.moveaxis(codes, axis, -1).astype(np.uint32)
    stream = ((moved[..., None] >> np.arange(bits, dtype=np.uint32)) & 1).reshape(*moved.shape[:-1], -1)
    words = np.packbits(stream.astype(np.uint8), axis=-1, bitorder="little").view("<i4")
    return np.ascontiguousarray(np.moveaxis(words, -1, axis))


def parent_arrays() -> dict[str, np.ndarray]:
    """The parent's weights as float32."""
    from safetensors.torch import load_file

    return {name: tensor.float().numpy() for name, tensor in load_file(PARENT / "model.safetensors").items()}


def start(name: str) -> Path:
    """An empty folder with the parent's config."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(PARENT / "config.json", folder)
    return folder


def write(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write the tensors of a folder."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})


def claim(folder: Path, quantization: dict[str, object]) -> None:
    """Add a quantization config to the folder's config."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"quantization_config": quantization}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


MAKERS: dict[str, Callable[[], None]] = {
    "parent": make_parent,
    "sharded": make_sharded,
    "dequantized": make_dequantized,
    "gptq": make_gptq,
    "awq": make_awq,
    "gguf": make_gguf,
    "compressed-tensors": make_compressed_tensors,
    "bitsandbytes": make_bitsandbytes,
    "torchao": make_torchao,
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or list(MAKERS):
        MAKERS[chosen]()

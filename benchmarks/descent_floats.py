"""Quantizers of narrow floats, HQQ and quanto, in their libraries' layouts.

FP8 in blocks is transformers' own operation. FP8 per channel follows modelopt's `to_quantized_weight` (FP8_PC_PT), MXFP4
OpenAI's `downcast_to_mxfp` (scales rounded up to a power of two); their writers need a GPU. HQQ follows
`optimize_weights_proximal_legacy` of hqq 0.2.8 (Badri and Shaji 2023), quanto `MaxOptimizer`, `AbsmaxOptimizer` and
`quantize_affine` of optimum-quanto 0.2.7; both were compared with the libraries code by code.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from descent_parents import EXPERTS
from descent_quantizers import LINEAR, Array, Weights, bfloat16_bits, save

from mlflow_quantgov.artifact.tensors import write_safetensors

_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def save_torch(folder: Path, tensors: dict[str, Any], config: dict[str, Any], method: dict[str, Any]) -> Path:
    """Write a folder of torch tensors."""
    from safetensors.torch import save_file

    save(folder, {}, config | {"quantization_config": method})
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / "model.safetensors")
    return folder


def write_fp8_blocks(folder: Path, weights: Weights, config: dict[str, Any], side: int) -> Path:
    """Float8 in square blocks, by transformers."""
    import torch
    from transformers import FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    settings = FineGrainedFP8Config(weight_block_size=(side, side))
    operation = Fp8Quantize(SimpleNamespace(quantization_config=settings))
    tensors: dict[str, torch.Tensor] = {}
    for name, one in weights.items():
        tensor = torch.from_numpy(one)
        tensors |= operation.convert({name: tensor}) if LINEAR.search(name) else {name: tensor}
    method = {"quant_method": "fp8", "weight_block_size": [side, side], "activation_scheme": "dynamic"}
    return save_torch(folder, tensors, config, method)


def write_fp8_rows(folder: Path, weights: Weights, config: dict[str, Any]) -> Path:
    """Float8 with a scale per row, as modelopt writes it."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for name, one in weights.items():
        tensor = torch.from_numpy(one)
        if LINEAR.search(name):
            scale = tensor.abs().amax(1) / 448
            tensors |= {name: (tensor / scale[:, None]).to(torch.float8_e4m3fn), f"{name}_scale": scale}
        else:
            tensors[name] = tensor
    return save_torch(folder, tensors, config, {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"})


def write_mxfp4(folder: Path, weights: Weights, config: dict[str, Any]) -> Path:
    """Experts of gpt-oss in MXFP4, from bfloat16 as its quantizer takes them; the rest in bfloat16."""
    tensors: Weights = {}
    narrow = set()
    for name, one in weights.items():
        bits = bfloat16_bits(one)
        if not EXPERTS.search(name):
            tensors[name] = bits
            narrow.add(name)
            continue
        groups = (bits.astype(np.uint32) << 16).view(np.float32).transpose(0, 2, 1)
        groups = groups.reshape(*groups.shape[:-1], -1, 32)
        exponent = np.ceil(np.log2(np.abs(groups).max(-1) / 6))
        levels = groups / 2 ** exponent[..., None]
        codes = np.abs(np.abs(levels)[..., None] - _FP4).argmin(-1).astype(np.uint8)
        codes |= ((levels < 0) * 8).astype(np.uint8)
        tensors[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
        tensors[f"{name}_scales"] = (exponent + 127).astype(np.uint8)
    save(folder, {}, config | {"quantization_config": {"quant_method": "mxfp4"}})
    write_safetensors(folder / "model.safetensors", tensors, bf16=frozenset(narrow))
    return folder


def write_hqq(folder: Path, weights: Weights, config: dict[str, Any], bits: int, group: int) -> Path:
    """HQQ of 4 or 8 bit along the input (axis 1), zero points by its solver, scales in float16."""
    tensors: Weights = {}
    for name, one in weights.items():
        if not LINEAR.search(name):
            tensors[name] = one
            continue
        codes, scale, zero = solve_hqq(one.reshape(-1, group), bits)
        half = len(codes) // 2
        settings = {"nbits": bits, "group_size": group, "axis": 1}
        words = {"packing": f"{bits}bit_u8", "compute_dtype": "torch.float16"}
        parts: Weights = {
            "W_q": codes if bits == 8 else codes[:half] << 4 | codes[half:],
            "scale": scale.astype(np.float16),
            "zero": zero.astype(np.float16),
            "shape": np.array(one.shape, dtype=np.int64),
        }
        parts |= {key: np.array(value, dtype=np.int32) for key, value in settings.items()}
        parts |= {key: np.frombuffer(value.encode(), dtype=np.uint8) for key, value in words.items()}
        tensors |= {f"{name.removesuffix('weight')}{key}": value for key, value in parts.items()}
    return save(folder, tensors, config | {"quantization_config": {"quant_method": "hqq"}})


def solve_hqq(rows: Array, bits: int) -> tuple[Array, Array, Array]:
    """Codes, scales and zero points of groups: zero points are moved until the error grows again, then all is rounded."""
    low, high, top = rows.min(1, keepdims=True), rows.max(1, keepdims=True), np.float32(2**bits - 1)
    scale = np.minimum(top / (high - low), np.float32(2e4))
    zero, best = -low * scale, np.inf
    for _ in range(20):
        codes = np.clip(np.rint(rows * scale + zero), 0, top)
        found = (codes - zero) / scale
        left = rows - found
        with np.errstate(divide="ignore"):
            shrunk = np.sign(left) * np.maximum(np.abs(left) - np.abs(left) ** np.float32(-0.3) / 10, 0)
        zero = np.mean(codes - (rows - shrunk) * scale, axis=1, keepdims=True, dtype=np.float32)
        error = float(np.abs(left).mean())
        if error >= best:
            break
        best = error
    codes = np.clip(np.rint(rows * scale + zero), 0, top)
    return codes.astype(np.uint8), 1 / scale, zero


def write_quanto(folder: Path, weights: Weights, config: dict[str, Any], bits: int, held: str) -> Path:
    """Quanto's int4 in groups of 128, or int8 per row, computed in the type that the model is held in."""
    import torch

    dtype = getattr(torch, held)
    tensors: dict[str, torch.Tensor] = {}
    for name, one in weights.items():
        tensor = torch.from_numpy(one).to(dtype)
        if not LINEAR.search(name):
            tensors[name] = tensor
        elif bits == 8:
            scale = tensor.abs().amax(1, keepdim=True) / 127
            codes = (tensor / scale).round().clamp(-128, 127).to(torch.int8)
            tensors |= {f"{name}._data": codes, f"{name}._scale": scale}
        else:
            rows = tensor.reshape(-1, 128)
            low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
            scale = (high - low) / 15
            codes = ((rows - low) / scale).round().clamp(0, 15).to(torch.uint8)
            half = len(codes) // 2
            tensors |= {
                f"{name}._data._data": codes[:half] | codes[half:] << 4,
                f"{name}._scale": scale,
                f"{name}._shift": -low,
            }
    return save_torch(folder, tensors, config, {"quant_method": "quanto"})

"""Quantizers with nothing but numpy, for models that are made only to be told apart.

GPTQ follows Frantar et al. 2022 (arXiv 2210.17323), with AutoGPTQ's grid and layout; AWQ follows Lin et al. 2023 (arXiv
2306.00978) without the search for the exponent, with AutoAWQ's layout; SmoothQuant follows Xiao et al. 2022 (arXiv
2211.10438), with compressed-tensors' int8 layout.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors

Array = NDArray[Any]
Weights = dict[str, Array]
LINEAR = re.compile(r"_proj\.weight$")
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_BEHIND_NORM = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def load(folder: Path) -> tuple[Weights, dict[str, Any]]:
    """Weights as float32, and the config."""
    files = sorted(folder.glob("*.safetensors"))
    weights = {name: np.array(one, dtype=np.float32) for file in files for name, one in read_safetensors(file)}
    return weights, json.loads((folder / "config.json").read_text(encoding="utf-8"))


def save(folder: Path, weights: Weights, config: dict[str, Any], bf16: frozenset[str] = frozenset()) -> Path:
    """Write a folder; names in `bf16` hold bit patterns of bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_safetensors(folder / "model.safetensors", weights, bf16=bf16)
    return folder


def bfloat16_bits(values: Array) -> Array:
    """Bit patterns of the nearest bfloat16 numbers."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def save_bfloat16(folder: Path, weights: Weights, config: dict[str, Any]) -> Path:
    """Write a full-precision folder in bfloat16."""
    return save(folder, {name: bfloat16_bits(one) for name, one in weights.items()}, config, frozenset(weights))


def grid(weight: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    """Scale and zero point per row of some columns, as AutoGPTQ's quantizer finds them."""
    low, high, top = np.minimum(weight.min(1), 0), np.maximum(weight.max(1), 0), 2**bits - 1
    if symmetric:
        high = np.maximum(np.abs(low), high)
        low = -high
    flat = high == low
    scale = np.where(flat, 1, high - low) / top
    return scale, np.full_like(scale, 2 ** (bits - 1)) if symmetric else np.rint(-low / scale)


def round_to_nearest(weight: Array, bits: int, group: int, symmetric: bool) -> tuple[Array, Array, Array, Array]:
    """Codes [out, in], scales [out, groups], zero points [out, groups], and the group of each column."""
    return gptq(weight, None, bits, group, symmetric)


def gptq(
    weight: Array, hessian: Array | None, bits: int, group: int, symmetric: bool = True, act_order: bool = False
) -> tuple[Array, Array, Array, Array]:
    """Column by column, the error of each passed on to those that follow; without a Hessian, plain rounding."""
    work, columns = weight.astype(np.float64), weight.shape[1]
    size = columns if group <= 0 else group
    order = np.arange(columns)
    if hessian is not None:
        order = np.argsort(-np.diag(hessian), kind="stable") if act_order else order
        damped = hessian[np.ix_(order, order)] + 0.01 * np.mean(np.diag(hessian)) * np.eye(columns)
        # The upper factor of the inverse; its rows say how an error is best spread over later columns.
        spread = np.linalg.cholesky(np.linalg.inv(damped)).T
    work = work[:, order]
    codes, scales, zeros = np.zeros(weight.shape), [], []
    for column in range(columns):
        if column % size == 0:
            scale, zero = grid(work[:, column : column + size], bits, symmetric)
            scales.append(scale)
            zeros.append(zero)
        one = np.clip(np.rint(work[:, column] / scale) + zero, 0, 2**bits - 1)
        codes[:, column] = one
        if hessian is not None:
            error = (work[:, column] - (one - zero) * scale) / spread[column, column]
            work[:, column:] -= np.outer(error, spread[column, column:])
    back = np.argsort(order)
    index = (np.arange(columns) // size)[back]
    return codes[:, back].astype(np.uint32), np.stack(scales, 1), np.stack(zeros, 1).astype(np.uint32), index


def dequantized(codes: Array, scales: Array, zeros: Array, index: Array) -> Array:
    """Numbers of codes."""
    return ((codes.astype(np.float64) - zeros[:, index]) * scales[:, index]).astype(np.float32)


def pack_words(codes: Array, bits: int, axis: int) -> Array:
    """Codes as one stream of bits along an axis, lowest first, cut into 32-bit words."""
    moved = np.moveaxis(codes, axis, -1).astype(np.uint32)
    stream = ((moved[..., None] >> np.arange(bits, dtype=np.uint32)) & 1).reshape(*moved.shape[:-1], -1)
    words = np.packbits(stream.astype(np.uint8), axis=-1, bitorder="little").view("<i4")
    return np.ascontiguousarray(np.moveaxis(words, -1, axis))


def write_gptq(
    folder: Path, weights: Weights, config: dict[str, Any], bits: int, group: int,
    hessians: dict[str, Array] | None = None, act_order: bool = False,
) -> Path:  # fmt: skip
    """A folder in AutoGPTQ's layout; without Hessians, plain rounding in that layout."""
    tensors: Weights = {}
    for name, one in weights.items():
        if not LINEAR.search(name):
            tensors[name] = one.astype(np.float16)
            continue
        stem = name.removesuffix("weight")
        hessian = hessians[name] if hessians else None
        codes, scales, zeros, index = gptq(one, hessian, bits, group, act_order=act_order)
        tensors[f"{stem}qweight"] = pack_words(codes.T, bits, 0)
        tensors[f"{stem}qzeros"] = pack_words(((zeros - 1) & (2**bits - 1)).T, bits, 1)
        tensors[f"{stem}scales"] = np.ascontiguousarray(scales.T.astype(np.float16))
        tensors[f"{stem}g_idx"] = index.astype(np.int32)
    claim = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": True, "desc_act": act_order}
    return save(folder, tensors, config | {"quantization_config": claim})


def fold(weights: Weights, magnitudes: dict[str, Array], exponent: float, *, products: bool) -> Weights:
    """Move scales out of norms (and out of up projections, where `products`) into the matrices behind them.

    Args:
        weights: The parent's.
        magnitudes: Mean magnitude of each input channel, by the name of the matrix.
        exponent: Of the magnitudes; AWQ searches it, SmoothQuant takes one half.
        products: Whether down projections get scales too.
    """
    folded = dict(weights)
    layers = sorted({found[1] for name in weights if (found := re.match(r"(.*layers\.\d+\.)", name))})
    for layer in layers:
        for norm, behind in _BEHIND_NORM.items():
            scale = _scale(magnitudes[f"{layer}{behind[0]}.weight"], exponent)
            folded[f"{layer}{norm}.weight"] = folded[f"{layer}{norm}.weight"] / scale
            for matrix in behind:
                folded[f"{layer}{matrix}.weight"] = folded[f"{layer}{matrix}.weight"] * scale
        if products:
            scale = _scale(magnitudes[f"{layer}mlp.down_proj.weight"], exponent)
            folded[f"{layer}mlp.up_proj.weight"] = folded[f"{layer}mlp.up_proj.weight"] / scale[:, None]
            folded[f"{layer}mlp.down_proj.weight"] = folded[f"{layer}mlp.down_proj.weight"] * scale
    return {name: one.astype(np.float32) for name, one in folded.items()}


def _scale(magnitude: Array, exponent: float) -> Array:
    scale = np.maximum(magnitude, 1e-4) ** exponent
    return (scale / np.sqrt(scale.max() * scale.min())).astype(np.float32)


def write_awq(folder: Path, weights: Weights, config: dict[str, Any], group: int, magnitudes: dict[str, Array]) -> Path:
    """A folder in AutoAWQ's GEMM layout: 4 bit with zero points, scales folded."""
    tensors: Weights = {}
    for name, one in fold(weights, magnitudes, 0.5, products=True).items():
        if not LINEAR.search(name):
            tensors[name] = one.astype(np.float16)
            continue
        stem = name.removesuffix("weight")
        codes, scales, zeros, _ = round_to_nearest(one, 4, group, symmetric=False)
        tensors[f"{stem}qweight"] = pack_words(_interleaved(codes.T), 4, 1)
        tensors[f"{stem}qzeros"] = pack_words(_interleaved(zeros.T), 4, 1)
        tensors[f"{stem}scales"] = np.ascontiguousarray(scales.T.astype(np.float16))
    claim = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    return save(folder, tensors, config | {"quantization_config": claim})


def _interleaved(codes: Array) -> Array:
    return np.ascontiguousarray(codes.reshape(codes.shape[0], -1, 8)[:, :, _AWQ_ORDER].reshape(codes.shape))


def write_smoothquant(folder: Path, weights: Weights, config: dict[str, Any], magnitudes: dict[str, Array]) -> Path:
    """A folder in compressed-tensors' int8 layout: one scale per row, SmoothQuant's scales folded into the norms."""
    tensors: Weights = {}
    for name, one in fold(weights, magnitudes, 0.5, products=False).items():
        if not LINEAR.search(name):
            tensors[name] = one.astype(np.float32)
            continue
        scale = np.abs(one).max(1, keepdims=True) / 127.5
        tensors[name] = np.clip(np.rint(one / scale), -128, 127).astype(np.int8)
        tensors[f"{name}_scale"] = scale.astype(np.float32)
    scheme = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    activations = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": scheme, "input_activations": activations, "format": "int-quantized"}
    claim = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": group}}
    return save(folder, tensors, config | {"quantization_config": claim})

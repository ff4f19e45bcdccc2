"""Recipes that are worth considering before anything is quantized: what each makes, with which quantizer, in which bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from mlflow_quantgov.artifact.quantization import LayerQuantization, Quantization, Structure
from mlflow_quantgov.artifact.tensors.ggml_types import TYPES

PUBLISHED = "llama.cpp's table of its mixtures (Q4_K_M for Q4_K) on Llama 3 8B; another model loses more or less"
"""Where `Suggestion.published_kl` comes from: the table of llama.cpp's tools/quantize, read on 2026-11-23."""
_KL = {"Q8_0": 0.001355, "Q6_K": 0.005452, "Q5_K": 0.010762, "Q4_K": 0.031273, "Q4_0": 0.071940, "Q3_K": 0.101913,
       "Q2_K": 0.445132}  # fmt: skip
"""Of the mixtures that are called after the type (Q4_K_M for Q4_K), all without an importance matrix. IQ4_NL was published
with one alone (0.035742), and would look better than it compares."""
_OUTPUT = ("lm_head", "output", "embed_out")
_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")


@dataclass(frozen=True)
class Suggestion:
    """One way to quantize the matrices of a language model."""

    name: str
    """As people call it: `Q4_K`, `GPTQ 4 bit, group 128`."""
    format: str
    """Container that it gives, as `quantgov inspect` names it."""
    bits: float
    stored_bits: float
    """Bits of one quantized weight with its share of scales and zero points."""
    group_size: int | None
    """Weights that share a scale; None for one per channel."""
    symmetric: bool = True
    desc_act: bool | None = None
    activation_bits: int | None = None
    """None where activations are not rounded."""
    type: str | None = None
    """Storage type as the container calls it."""
    method: str | None = None
    quantizer: str | None = None
    """Quantizer of this package that makes it; None where another tool does."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    calibrates: bool = False
    """Whether it sees texts, which then are part of the evidence."""
    elsewhere: str = ""
    """What makes it, where no quantizer of this package does."""
    rest_bits: float = 16
    """Bits of a weight of the embedding and of what else stays unquantized."""
    embedding: bool = False
    """Whether the embedding and the output matrix are quantized too."""
    published_kl: float | None = None
    """Mean KL divergence from float16 in nats per token, as its makers published it for one model (`PUBLISHED`); None where
    they published none."""

    def quantization(self, parent: Structure | None = None) -> Quantization:
        """What inspection would find in it, as far as can be said beforehand.

        Args:
            parent: Structure of the model that is to be quantized; without it the shapes stay open.
        """
        found = matrices(parent) if parent else {}
        named = {name: shape for name, shape in found.items() if self.embedding or not is_embedding(name)}
        # Without a parent one layer of no known shape stands for all.
        layers = [
            LayerQuantization(name, self.bits, self.group_size, shape, self.type)
            for name, shape in (named or {"any": ()}).items()
        ]
        bits, size = self.size(parent) if parent else (self.stored_bits, 0)
        total = sum(prod(shape) for shape in parent.tensors.values()) if parent else 0
        return Quantization(
            format=self.format,
            method=self.method,
            bits=self.bits,
            bits_per_weight=bits,
            group_size=self.group_size,
            granularity="channel" if self.group_size is None else "group",
            symmetric=self.symmetric,
            activation_bits=self.activation_bits,
            kv_cache_bits=None,
            desc_act=self.desc_act,
            dtype="bfloat16",
            quantized_parameters=sum(prod(shape) for shape in named.values()),
            total_parameters=total,
            size_bytes=size,
            producer=None,
            calibration_required=self.calibrates,
            layers=tuple(layers),
        )

    def size(self, parent: Structure) -> tuple[float, int]:
        """Bits per weight of all parameters together, and bytes, as the recipe leaves them; about, since files hold more."""
        found = matrices(parent)
        total = sum(prod(shape) for shape in parent.tensors.values())
        quantized = sum(prod(shape) for name, shape in found.items() if self.embedding or not is_embedding(name))
        stored = quantized * self.stored_bits + (total - quantized) * self.rest_bits
        return stored / total, round(stored / 8)


def matrices(parent: Structure) -> dict[str, tuple[int, ...]]:
    """Weight matrices of a model, by canonical name."""
    return {name: shape for name, shape in parent.tensors.items() if len(shape) >= 2 and min(shape[-2:]) > 1}


def is_embedding(name: str) -> bool:
    """Whether a matrix is the embedding or the output matrix, which most quantizers leave as they are."""
    parts = name.removesuffix(".weight").split(".")
    return bool({*_OUTPUT, *_EMBEDDINGS} & set(parts))


def _gguf(kind: str) -> Suggestion:
    """One of llama.cpp's types for every matrix."""
    found = next(one for one in TYPES.values() if one.name == kind)
    assert found.bits is not None and found.group is not None
    return Suggestion(
        name=kind, format="gguf", bits=found.bits, stored_bits=found.bytes * 8 / found.block, group_size=found.group,
        symmetric=not kind.endswith("_1") and kind not in {"Q4_K", "Q5_K", "Q2_K"}, type=kind, method=kind,
        quantizer="llama.cpp", arguments={"type": kind}, embedding=True, published_kl=_KL.get(kind),
    )  # fmt: skip


def _gptq(bits: int, group: int | None) -> Suggestion:
    """Gptqmodel's symmetric GPTQ without act-order: scales of 16 bit, and zero points of the width of the weights."""
    words = f"group {group}" if group else "per channel"
    return Suggestion(
        name=f"GPTQ {bits} bit, {words}", format="gptq", bits=bits,
        stored_bits=bits + ((16 + bits) / group if group else 0), group_size=group, desc_act=False, type="gptq", method="gptq",
        quantizer="gptqmodel",
        arguments={"bits": bits, "group_size": group or -1, "sym": True, "desc_act": False}, calibrates=True,
    )  # fmt: skip


def _compressed(name: str, modifier: str, scheme: str, **facts: Any) -> Suggestion:
    """One of llm-compressor's schemes, all layers but the output matrix."""
    arguments = {"modifiers": [{modifier: {"scheme": scheme, "targets": "Linear", "ignore": ["lm_head"]}}]}
    return Suggestion(
        name=name, format="compressed-tensors", quantizer="llmcompressor", arguments=arguments, calibrates=True, **facts
    )


def _torchao(name: str, config: str, activations: int | None) -> Suggestion:
    return Suggestion(
        name=name, format="torchao", bits=8, stored_bits=8, group_size=None, activation_bits=activations, type="Int8Tensor",
        method=config, quantizer="torchao", arguments={"config": config},
    )  # fmt: skip


def _bitsandbytes(name: str, bits: int, kind: str, group: int | None, arguments: dict[str, Any]) -> Suggestion:
    return Suggestion(
        name=name, format="bitsandbytes", bits=bits, stored_bits=bits + (32 / group if group else 0), group_size=group,
        activation_bits=8 if bits == 8 else None, type=kind, method=kind, quantizer="bitsandbytes", arguments=arguments,
    )  # fmt: skip


def _onnx(name: str, precision: str, bits: int) -> Suggestion:
    """The builder's MatMulNBits: blocks of 32 with scales of 32 bit on a CPU, everything else in float32."""
    return Suggestion(
        name=name, format="onnx", bits=bits, stored_bits=bits + 1, group_size=32, quantizer="onnxruntime-genai",
        arguments={"precision": precision}, rest_bits=32,
    )  # fmt: skip


SUGGESTIONS: tuple[Suggestion, ...] = (
    *(_gguf(kind) for kind in ("Q4_K", "Q4_0", "IQ4_NL", "Q5_K", "Q6_K", "Q8_0", "Q3_K", "Q2_K")),
    _onnx("MatMulNBits 4 bit, block 32", "int4", 4),
    _onnx("MatMulNBits 8 bit, block 32", "int8", 8),
    Suggestion(
        name="int8, activations too", format="onnx", bits=8, stored_bits=8, group_size=None, activation_bits=8, rest_bits=32,
        elsewhere="optimum-onnx, see docs/how-to/make-an-onnx-model.md",
    ),
    _compressed("W4A16 (GPTQ), group 128", "GPTQModifier", "W4A16", bits=4, stored_bits=4.125, group_size=128, type="int"),
    _compressed(
        "W4A16 asymmetric (AWQ), group 128", "AWQModifier", "W4A16_ASYM", bits=4, stored_bits=4.16, group_size=128,
        symmetric=False, type="int",
    ),
    _compressed(
        "FP8, activations too", "QuantizationModifier", "FP8_DYNAMIC", bits=8, stored_bits=8, group_size=None,
        activation_bits=8, type="float8",
    ),
    _compressed(
        "W8A8 int8, activations too", "GPTQModifier", "W8A8", bits=8, stored_bits=8, group_size=None, activation_bits=8, type="int"
    ),
    _compressed("W8A16 (GPTQ), per channel", "GPTQModifier", "W8A16", bits=8, stored_bits=8, group_size=None, type="int"),
    _gptq(4, 128),
    _gptq(4, 32),
    _gptq(8, 128),
    _gptq(3, 128),
    Suggestion(
        name="AWQ 4 bit, group 128", format="awq", bits=4, stored_bits=4.16, group_size=128, symmetric=False, type="gemm",
        method="awq", calibrates=True, elsewhere="gptqmodel on a GPU, or llm-compressor's AWQModifier as compressed-tensors",
    ),
    Suggestion(
        name="FP8 by blocks of 128", format="fp8", bits=8, stored_bits=8, group_size=128, activation_bits=8, type="e4m3",
        method="fp8", elsewhere="the model's makers, or vLLM's online quantization",
    ),
    Suggestion(
        name="NVFP4", format="nvfp4", bits=4, stored_bits=4.5, group_size=16, activation_bits=4, type="nvfp4", method="modelopt",
        calibrates=True, elsewhere="NVIDIA's modelopt",
    ),
    _torchao("torchao int8, weights alone", "Int8WeightOnlyConfig", None),
    _torchao("torchao int8, activations too", "Int8DynamicActivationInt8WeightConfig", 8),
    _bitsandbytes(
        "bitsandbytes NF4", 4, "nf4", 64,
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"},
    ),
    _bitsandbytes("bitsandbytes int8", 8, "int8", None, {"load_in_8bit": True}),
)  # fmt: skip
"""In the order in which they are named where nothing else decides; widths below 4 bit stand behind their like."""

"""GGUF: every tensor names its own storage type."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.artifact.formats.full_precision import ON_GRID, lies_on_grid
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization, Quantization
from mlflow_quantgov.artifact.structure import structure_of_gguf
from mlflow_quantgov.artifact.tensors import GgufFile, Tensor
from mlflow_quantgov.artifact.tensors.ggml_types import TYPES, GgmlType

_BY_NAME = {one.name: one for one in TYPES.values()}
# general.file_type -> name. Source: enum llama_ftype in llama.h.
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip
_SYMMETRIC = {"Q4_0", "Q5_0", "Q8_0", "Q3_K", "Q6_K", "Q8_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"}


def read(file: GgufFile, size_bytes: int) -> Inspection:
    """Facts of one GGUF file.

    Args:
        file: Its header.
        size_bytes: Of all files of the artifact.
    """
    matrices = {name: one for name, one in file.tensors.items() if _BY_NAME[one.dtype].bits is not None}
    layers = tuple(_layer(one, _BY_NAME[one.dtype]) for one in matrices.values())
    weight_of: dict[float, int] = {}
    for one in matrices.values():
        bits = _BY_NAME[one.dtype].bits or 0
        weight_of[bits] = weight_of.get(bits, 0) + one.elements
    majority = max(matrices.values(), key=lambda one: (_elements(matrices, one.dtype), one.dtype), default=None)
    main = _BY_NAME[majority.dtype] if majority else None
    total = sum(one.elements for one in file.tensors.values())
    plain = {name: one for name, one in file.tensors.items() if name not in matrices}
    facts = Quantization(
        format="gguf",
        method=FILE_TYPES.get(file.metadata.get("general.file_type", -1)) or (main.name if main else None),
        bits=max(weight_of, key=lambda bits: (weight_of[bits], -bits)) if weight_of else None,
        bits_per_weight=8 * sum(one.size for one in file.tensors.values()) / total if total else 0.0,
        group_size=main.group if main else None,
        granularity="group" if main else None,
        symmetric=main.name in _SYMMETRIC if main else None,
        activation_bits=None,
        kv_cache_bits=None,
        desc_act=None,
        dtype=_dtype(plain),
        quantized_parameters=sum(one.elements for one in matrices.values()),
        total_parameters=total,
        size_bytes=size_bytes,
        producer=_producer(file.metadata),
        calibration_required=_needs_calibration(file.metadata, matrices),
        layers=layers,
        warnings=(ON_GRID,) if not matrices and lies_on_grid(_as_safetensors(plain)) else (),
    )
    shapes = {name: one.shape for name, one in file.tensors.items()}
    language = "tokenizer.ggml.model" in file.metadata or "token_embd.weight" in file.tensors
    return Inspection(facts, structure_of_gguf(file.metadata, shapes), language)


def _layer(tensor: Tensor, storage: GgmlType) -> LayerQuantization:
    name = tensor.name.removesuffix(".weight")
    return LayerQuantization(name, storage.bits or 0, storage.group, tensor.shape, storage.name)


def _elements(tensors: dict[str, Tensor], dtype: str) -> int:
    return sum(one.elements for one in tensors.values() if one.dtype == dtype)


def _as_safetensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float tensors share their type names with safetensors, so the same sampling reads them."""
    return {name: one for name, one in tensors.items() if one.dtype in {"F32", "F16", "BF16"}}


def _dtype(plain: dict[str, Tensor]) -> str | None:
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
    found = {one.dtype for one in plain.values() if one.dtype in names}
    return names[max(found, key=lambda dtype: _elements(plain, dtype))] if found else None


def _needs_calibration(metadata: dict[str, Any], matrices: dict[str, Tensor]) -> bool:
    """True where an importance matrix was used, or the type cannot be made well without one."""
    if any(key.startswith("quantize.imatrix.") for key in metadata):
        return True
    return any(one.dtype.startswith(("IQ1", "IQ2", "IQ3")) for one in matrices.values())


def _producer(metadata: dict[str, Any]) -> str | None:
    found = metadata.get("general.quantized_by") or metadata.get("quantgov.producer")
    return str(found) if found else None

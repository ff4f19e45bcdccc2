"""Loads a folder with transformers, and counts what then really lies in memory."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.inspect import inspect_model
from mlflow_quantgov.artifact.quiet import quiet
from mlflow_quantgov.errors import ArtifactError, require

PURPOSE = "load a model with transformers"
LIBRARIES: dict[str, tuple[str, ...]] = {
    "bitsandbytes": ("bitsandbytes",),
    "torchao": ("torchao",),
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
    "auto-round": ("auto_round",),
    "hqq": ("hqq",),
    "quanto": ("optimum.quanto",),
}
"""Quantization method of a config to the modules that transformers needs for it."""
EXTRAS = {"gptq": "gptq", "awq": "gptq"}
"""Method to the extra of this package that brings them, where one does."""
_LOW_BIT = ("int8", "uint8", "int16", "int32", "float8", "float4", "int4", "uint4", "int2", "uint2", "bits8")
"""Beginnings of the storage types that hold quantized weights (packed ones in wider integers)."""


@dataclass(frozen=True)
class Resident:
    """The weights of a loaded model as they lie in memory after a first pass."""

    bytes: int
    low_bit_bytes: int
    """Of them, stored in integers or floats below 16 bit (or packed into wider integers)."""
    types: dict[str, int]
    """Class of the parameter and storage type to number of tensors."""
    kernel: str | None
    """Module and storage type that hold most weights of the layers."""
    widest_floats: dict[str, int]
    """Module with tensors of its own to the number of values of its largest plain tensor of floats of 16 bit or more."""


def read_config(path: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        ArtifactError: It is not there, or no JSON object.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise not_loaded(path, f"its config.json does not read: {type(error).__name__}") from error
    if not isinstance(config, dict):
        raise not_loaded(path, "its config.json is no object")
    return config


def method_of(config: dict[str, Any]) -> str | None:
    """The quantization method that a config declares; None for full precision."""
    declared = config.get("quantization_config")
    return str(declared.get("quant_method", "unknown")) if isinstance(declared, dict) else None


def load(path: Path, *, dtype: str, device: str) -> tuple[Any, Any]:
    """Model and tokenizer of a local folder; no remote code, no pickle, no network.

    Args:
        path: The model folder.
        dtype: `auto` for the stored type, or a torch dtype's name.
        device: A torch device.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ArtifactError: The folder does not load, or lacks weights.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    require("torch", extra="transformers", purpose=PURPOSE)
    transformers = require("transformers", extra="transformers", purpose=PURPOSE)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
            model, loading = transformers.AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, device_map=device, use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:
        raise not_loaded(path, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    # transformers fills what the files lack with random numbers, and says so in a log alone. A symmetric quantization
    # has no zero points, and they are filled with zeros.
    lists = [loading.get(key) or () for key in ("missing_keys", "mismatched_keys")]
    absent = sorted(name for names in lists for name in map(str, names) if not name.endswith("zero_point"))
    if absent:
        raise not_loaded(path, f"its files do not hold {len(absent)} weights that the model needs ({absent[0]})")
    return model.eval(), tokenizer


def resident(model: Any) -> Resident:
    """Count the weights in memory. Run one pass first: some libraries expand theirs only then."""
    types: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    total = low = 0
    embeddings = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    seen: set[int] = set()
    widest: dict[str, int] = {}
    for module_name, module in model.named_modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            parts = parts_of(tensor)
            floats = (part.numel() for part in parts if part.is_floating_point() and not is_low_bit(part))
            widest[module_name] = max(widest.get(module_name, 0), *floats, 0)
            size = sum(part.nbytes for part in parts)
            total += size
            low += sum(part.nbytes for part in parts if is_low_bit(part))
            name = _type_name(tensor, parts)
            types[name] += 1
            if id(module) not in embeddings and tensor.dim() >= 2:
                kernels[f"{type(module).__name__} {name}"] += size
    kernel = max(kernels, key=lambda name: kernels[name]) if kernels else None
    return Resident(total, low, dict(types), kernel, widest)


def expanded_share(path: Path, found: Resident) -> float | None:
    """Of the weights that the artifact stores quantized, the share that lies in memory as floats of 16 bit or more.

    Layer by layer where the modules carry the names of the files; else by bytes, which cannot tell a matrix that is held twice.

    Args:
        path: The model folder.
        found: What lies in memory.

    Returns:
        None for a model that stores nothing quantized.
    """
    try:
        stored = inspect_model(path).quantization
    except ArtifactError:
        return None if method_of(read_config(path)) is None else float(not found.low_bit_bytes)
    if not stored.is_quantized:
        return None
    sizes = {layer.name: prod(layer.shape) for layer in stored.layers}
    known = {name: size for name, size in sizes.items() if name in found.widest_floats}
    if sum(known.values()) > 0.5 * sum(sizes.values()):
        expanded = sum(size for name, size in known.items() if found.widest_floats[name] >= size)
        return expanded / sum(known.values())
    expected = stored.quantized_parameters * (stored.bits or 8) / 8
    return max(0.0, 1 - found.low_bit_bytes / expected)


def parts_of(tensor: Any) -> list[Any]:
    """The plain tensors that a parameter consists of: itself, a subclass's parts, and bitsandbytes' side data."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        return [part for name in flatten()[0] if (part := getattr(tensor, name)) is not None]
    return [tensor, *_side_data(getattr(tensor, "quant_state", None))]


def is_low_bit(tensor: Any) -> bool:
    """Whether a plain tensor is of a type that holds quantized weights."""
    return _storage(tensor).startswith(_LOW_BIT)


def _side_data(state: Any) -> list[Any]:
    """Scales of a bitsandbytes parameter, which no module lists."""
    if state is None:
        return []
    found = [part for name in ("absmax", "code", "offset") if (part := getattr(state, name, None)) is not None]
    return found + _side_data(getattr(state, "state2", None))


def _type_name(tensor: Any, parts: list[Any]) -> str:
    """`float32`, or the parameter's class with the type of its largest part (`Params4bit uint8`)."""
    storage = _storage(max(parts, key=lambda part: part.nbytes))
    name = type(tensor).__name__
    return storage if name in {"Parameter", "Tensor", "Buffer"} else f"{name} {storage}"


def _storage(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def not_loaded(path: Path, problem: str) -> ArtifactError:
    """The error that says why a folder does not load."""
    return ArtifactError(
        f"transformers does not load {path.name}: {problem}.",
        why="What does not load cannot be measured or served.",
        fix=f"quantgov inspect {path}",
    )

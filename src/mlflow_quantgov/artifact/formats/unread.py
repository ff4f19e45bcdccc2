"""Formats that are known by name and not read yet."""

from __future__ import annotations

from collections.abc import Iterable

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.errors import UnknownFormatError

# quant_method of a config -> name of the format. Source: the quantizers of transformers 5.
_BY_METHOD = {
    "fbgemm_fp8": "fp8", "finegrained_fp8": "fp8", "fp8": "fp8", "mxfp4": "mxfp4", "hqq": "hqq", "quanto": "quanto",
    "auto-round": "auto-round", "auto_round": "auto-round", "intel/auto-round": "auto-round", "autoround": "auto-round",
}  # fmt: skip
_BY_SUFFIX = {
    ".weight_scale_inv": "fp8", ".input_scale_inv": "fp8", ".W_q": "hqq", "._data": "quanto", "_blocks": "mxfp4",
    ".codebooks": "aqlm", ".lora_A.weight": "adapter", ".lora_B.weight": "adapter",
}  # fmt: skip


def format_of_claim(method: str | None) -> str | None:
    """Name of the format that a config claims and that no reader here knows; other names as they are."""
    return _BY_METHOD.get(method, method) if method else None


def is_unread_claim(method: str | None) -> bool:
    """Whether a config claims a format that is known by name only."""
    return method in _BY_METHOD


def format_of_tensors(tensors: dict[str, Tensor]) -> str | None:
    """Name of the format whose tensors these look like."""
    for name in tensors:
        for suffix, found in _BY_SUFFIX.items():
            if name.endswith(suffix):
                return found
    return "fp8" if any(one.dtype.startswith("F8_") for one in tensors.values()) else None


def is_adapter(names: Iterable[str]) -> bool:
    """Whether these are the tensors of a LoRA adapter."""
    return any(".lora_A." in name or ".lora_B." in name for name in names)


def unread(files: ArtifactFiles, name: str) -> UnknownFormatError:
    """The error that names a format which no reader knows."""
    return unknown_format(files.root.name or str(files.root), name)


def unknown_format(source: str, name: str) -> UnknownFormatError:
    """The same, for a source that holds no tensors that can be listed."""
    return UnknownFormatError(
        f"{source} is {name}, a format that is not read yet.",
        why="Its bits cannot be told from its bytes, so nothing about it would be certain.",
        fix="use full-precision safetensors, GPTQ, AWQ, compressed-tensors, bitsandbytes, torchao, GGUF, ONNX or OpenVINO",
    )

"""Formats that are known by name and not read: their codes mean nothing without tables or code that are not in the file.

- aqlm, vptq, quip, higgs: codes are indices into codebooks, or into lattices that a library computes; how many bits a
  weight takes depends on settings that stand in the config alone.
- spqr: a bit stream of its own, with outliers beside it, whose layout only its kernels know.
- eetq, bitnet, fp_quant, quark, sinq, metal, fouroversix: no file of these could be made or checked here.
- sparse-bitmask and 2:4 masks over floats (compressed-tensors before 0.13): pruned, not quantized; see `compressed_sparse`.
- float8 without a scale: a cast, whose meaning depends on the loader.
"""

from __future__ import annotations

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor
from mlflow_quantgov.errors import UnknownFormatError

# quant_method of a config. Source: the quantizers of transformers 5.24.
_UNREAD = frozenset({
    "aqlm", "vptq", "quip", "higgs", "spqr", "eetq", "bitnet", "fp_quant", "quark", "sinq", "metal", "fouroversix",
})  # fmt: skip
_BY_SUFFIX = {".codebooks": "aqlm", ".centroids": "vptq", ".Qidxs": "quip", ".dense_weights": "spqr"}


def is_unread_claim(method: str | None) -> bool:
    """Whether a config claims a format that is known by name only."""
    return method in _UNREAD


def format_of_tensors(tensors: dict[str, Tensor]) -> str | None:
    """Name of the format whose tensors these look like."""
    for name in tensors:
        for suffix, found in _BY_SUFFIX.items():
            if name.endswith(suffix):
                return found
    narrow = (one for one in tensors.values() if one.dtype.startswith("F8_") and not one.name.endswith("_zero_point"))
    return "float8 without scales" if any(narrow) else None


def unread(files: ArtifactFiles, name: str) -> UnknownFormatError:
    """The error that names a format which no reader knows."""
    return unknown_format(files.root.name or str(files.root), name)


def only_cache(files: ArtifactFiles) -> UnknownFormatError | None:
    """The error for float weights beside which a config asks for a narrow KV cache; None for anything else."""
    asked = any(isinstance(claim.get("kv_cache_scheme"), dict) for _, claim in files.claims)
    if not asked or any(one.dtype not in FLOATS for one in files.tensors.values()):
        return None
    return UnknownFormatError(
        f"{files.root.name} quantizes its KV cache and no weights, which is not read yet.",
        why="It answers otherwise than its parent, and by its weights it could not be told from it.",
        fix="quantize its weights too, or serve the full-precision model and let the runtime narrow the cache",
    )


def unknown_format(source: str, name: str) -> UnknownFormatError:
    """The same, for a source that holds no tensors that can be listed."""
    return UnknownFormatError(
        f"{source} is {name}, a format that is not read yet.",
        why="Its bits cannot be told from its bytes, so nothing about it would be certain.",
        fix="use full-precision safetensors, GPTQ, AWQ, AutoRound, compressed-tensors, bitsandbytes, torchao, FP8, HQQ, GGUF or ONNX",
    )

"""Pack a full-precision model in the GPTQ layout by rounding to nearest, without torch.

The demo offers such a file to a CPU target to show a refusal for its format. Rounding stands in for GPTQ's own
error-compensating search: the container is the same, and the container is what the target refuses.
Layout: AutoGPTQ's `qweight`, `qzeros`, `scales`, `g_idx` (v1: zero points are stored minus one).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.tensors import read_safetensors

BITS = 4
GROUP = 32
_PER_WORD = 32 // BITS


def pack_gptq(parent: Path, destination: Path) -> None:
    """Write a 4-bit, group-32, symmetric GPTQ folder from a full-precision safetensors folder.

    Args:
        parent: Folder with `model.safetensors` and `config.json`.
        destination: Folder to create.
    """
    destination.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (parent / name).is_file():
            shutil.copy2(parent / name, destination / name)
    config = json.loads((parent / "config.json").read_text(encoding="utf-8"))
    settings = {
        "bits": BITS,
        "group_size": GROUP,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
    }
    config["quantization_config"] = settings
    (destination / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (destination / "quantize_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    from mlflow_quantgov.artifact.tensors import write_safetensors

    packed: dict[str, NDArray[np.generic]] = {}
    for name, array in read_safetensors(parent / "model.safetensors"):
        if name.endswith("_proj.weight"):
            packed.update(_pack_matrix(name.removesuffix(".weight"), array.astype(np.float32)))
        else:
            packed[name] = array.astype(np.float16)
    write_safetensors(destination / "model.safetensors", packed)


def _pack_matrix(name: str, weight: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
    """One linear layer, [out, in], in GPTQ's tensors."""
    out_features, in_features = weight.shape
    groups = weight.reshape(out_features, in_features // GROUP, GROUP)
    middle = 2 ** (BITS - 1)
    scales = np.maximum(np.abs(groups).max(axis=2), 1e-8) / (middle - 1)
    codes = np.clip(np.rint(groups / scales[:, :, None]) + middle, 0, 2**BITS - 1).astype(np.uint32)
    codes = codes.reshape(out_features, in_features).T
    zeros = np.full((in_features // GROUP, out_features), middle - 1, dtype=np.uint32)
    return {
        f"{name}.qweight": _pack_words(codes, axis=0),
        f"{name}.qzeros": _pack_words(zeros, axis=1),
        f"{name}.scales": scales.T.astype(np.float16),
        f"{name}.g_idx": (np.arange(in_features) // GROUP).astype(np.int32),
    }


def _pack_words(codes: NDArray[np.uint32], axis: int) -> NDArray[np.int32]:
    """Eight 4-bit codes per 32-bit word along an axis, lowest first."""
    moved = np.moveaxis(codes, axis, 0)
    words = np.zeros((moved.shape[0] // _PER_WORD, *moved.shape[1:]), dtype=np.uint32)
    for index in range(_PER_WORD):
        words |= moved[index::_PER_WORD] << np.uint32(BITS * index)
    return np.ascontiguousarray(np.moveaxis(words, 0, axis)).view(np.int32)

"""GPTQ as its authors describe it (Frantar et al. 2023), small enough for a test: 4 bit, groups of 32, in AutoGPTQ's layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors
from mlflow_quantgov.demo.gptq_layout import _pack_words

GROUP, MIDDLE = 32, 8
DAMPING = 0.01


def quantize(parent: Path, destination: Path, texts: Sequence[str], tokens: int) -> Path:
    """Quantize the linear layers of a Llama folder, calibrated on the first tokens of some texts.

    Args:
        parent: Folder with `model.safetensors`.
        destination: Folder to create.
        texts: Calibration documents.
        tokens: Tokens of each that are run.
    """
    hessians = _hessians(parent, texts, tokens)
    destination.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy2(parent / name, destination / name)
    config = json.loads((parent / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True, "lm_head": False,
        "quant_method": "gptq", "checkpoint_format": "gptq",
    }  # fmt: skip
    (destination / "config.json").write_text(json.dumps(config), encoding="utf-8")
    packed: dict[str, NDArray[np.generic]] = {}
    for name, array in read_safetensors(parent / "model.safetensors"):
        module = name.removesuffix(".weight")
        if module in hessians:
            packed |= _packed(module, *_rounded(array.astype(np.float64), hessians[module]))
        else:
            packed[name] = array.astype(np.float16)
    write_safetensors(destination / "model.safetensors", packed)
    return destination


def _hessians(parent: Path, texts: Sequence[str], tokens: int) -> dict[str, NDArray[np.float64]]:
    """X^T X of every linear layer's inputs."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(parent)
    model = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32)
    found: dict[str, NDArray[np.float64]] = {}

    def watch(name: str, given: torch.Tensor) -> None:
        rows = given.detach().reshape(-1, given.shape[-1]).double().numpy()
        found[name] = found.get(name, 0.0) + rows.T @ rows

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith("_proj"):
            module.register_forward_pre_hook(lambda _, given, name=name: watch(name, given[0]))
    with torch.inference_mode():
        for text in texts:
            model(input_ids=torch.tensor([tokenizer(text)["input_ids"][:tokens]]))
    return found


def _rounded(
    weight: NDArray[np.float64], hessian: NDArray[np.float64]
) -> tuple[NDArray[np.uint32], NDArray[np.float16]]:
    """Codes [out, in] and scales [out, groups]: column by column, each error made up for in the columns that follow."""
    columns = weight.shape[1]
    damped = hessian + np.eye(columns) * (DAMPING * np.diag(hessian).mean())
    inverse = np.linalg.cholesky(np.linalg.inv(damped)).T
    sizes = np.abs(weight.reshape(len(weight), -1, GROUP)).max(axis=2)
    scales = (np.maximum(sizes, 1e-8) / (MIDDLE - 1)).astype(np.float16)
    left, codes = weight.copy(), np.zeros(weight.shape, dtype=np.uint32)
    for column in range(columns):
        scale = scales[:, column // GROUP].astype(np.float64)
        codes[:, column] = np.clip(np.rint(left[:, column] / scale) + MIDDLE, 0, 15)
        error = (left[:, column] - (codes[:, column].astype(np.float64) - MIDDLE) * scale) / inverse[column, column]
        left[:, column:] -= np.outer(error, inverse[column, column:])
    return codes, scales


def _packed(module: str, codes: NDArray[np.uint32], scales: NDArray[np.float16]) -> dict[str, NDArray[np.generic]]:
    rows, columns = codes.shape
    zeros = np.full((columns // GROUP, rows), MIDDLE - 1, dtype=np.uint32)
    return {
        f"{module}.qweight": _pack_words(codes.T, axis=0),
        f"{module}.qzeros": _pack_words(zeros, axis=1),
        f"{module}.scales": np.ascontiguousarray(scales.T),
        f"{module}.g_idx": (np.arange(columns) // GROUP).astype(np.int32),
    }

"""Factors of rotary frequencies that GGUF stores as a tensor: they must be those of the parent's configuration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Floats, Matrix
from mlflow_quantgov.artifact.files import read_json_object
from mlflow_quantgov.errors import ArtifactError

FACTORS = {
    "rope_freqs.weight": None,
    "rope_factors_long.weight": "long_factor",
    "rope_factors_short.weight": "short_factor",
}
"""Name of the tensor to the key of the configuration that lists it; None where a formula gives it."""
_TOLERANCE = 1e-3


def problem_of(one: Matrix, theirs: Matrix | None, parent: Path) -> str | None:
    """Why factors are not those of the parent; None where they are.

    llama.cpp divides every rotary frequency by them, so that others make another model of the same weights.

    Args:
        one: The factors, [rotary dimensions / 2].
        theirs: Those that the parent stores itself, if it does.
        parent: The parent's folder.
    """
    wanted = _expected(one.name, parent) if theirs is None else _numbers(theirs)
    if wanted is None:
        return f"What {one.name} should hold cannot be told from the parent's configuration."
    found = _numbers(one)
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=_TOLERANCE):
        return f"{one.name} holds other factors than the parent's configuration gives."
    return None


def _numbers(one: Matrix) -> Floats:
    return one.block(0, one.rows).values.reshape(-1)


def _expected(name: str, parent: Path) -> Floats | None:
    try:
        config = read_json_object(parent / "config.json") if parent.is_dir() else {}
        config = config.get("text_config", config)
        scaling = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
        key = FACTORS[name]
        if key is not None:
            return np.asarray(scaling[key], dtype=np.float32)
        return _llama3(config, scaling)
    except (ArtifactError, KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError):
        return None


def _llama3(config: dict[str, Any], scaling: dict[str, Any]) -> Floats | None:
    """Factors of Llama 3.1: 1 for short waves, `factor` for long ones, and a smooth passage between.

    Source: `rope_type: llama3` of transformers (modeling_rope_utils.py) and llama.cpp's converter.
    """
    if scaling.get("rope_type", scaling.get("type")) != "llama3":
        return None
    size = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    theta = float(scaling.get("rope_theta") or config.get("rope_theta") or 10000.0)
    factor, low, high = (float(scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = float(scaling["original_max_position_embeddings"])
    waves = 2 * math.pi * theta ** (np.arange(0, size, 2) / size)
    smooth = (context / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    found = np.where(waves < context / high, 1.0, np.where(waves > context / low, factor, between))
    return found.astype(np.float32)

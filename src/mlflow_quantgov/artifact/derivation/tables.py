"""Tables that follow from the config, and are no weights: they must hold what the config says, wherever they are stored.

Most loaders compute them anew and ignore what is stored; one that does not would compute another model with others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlflow_quantgov.artifact.dequantize import Matrix
from mlflow_quantgov.artifact.dequantize.interface import Floats
from mlflow_quantgov.artifact.derivation.rotary import FACTORS
from mlflow_quantgov.artifact.files import read_json_object
from mlflow_quantgov.errors import ArtifactError

_TABLES = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".position_ids", ".num_batches_tracked")
_ROUNDING = 2.0**-7
_NEAR_ZERO = 1e-7
_MOST = 1 << 22


def is_table(one: Matrix) -> bool:
    """Whether a tensor follows from the config; a bias of attention is one only where it is a square mask."""
    name = f".{one.name}"
    if name.endswith(".attn.bias") and (len(one.shape) < 2 or one.shape[-1] != one.shape[-2]):
        return False
    return one.name in FACTORS or name.endswith(_TABLES)


def table_problem(one: Matrix, theirs: Matrix | None, parent: Path) -> str | None:
    """Why a table is not what the parent computes with; None where it is.

    Factors of rotary frequencies (`rotary.py`) are not looked at here.

    Args:
        one: The table of the quantized model.
        theirs: The one that the parent stores, if it does.
        parent: The parent's folder.
    """
    if one.name in FACTORS:
        return None
    if one.rows * one.columns > _MOST:
        return f"{one.name} is too large a table to compare."
    found = _numbers(one)
    if theirs is not None and theirs.shape == one.shape and _are_close(found, _numbers(theirs)):
        return None
    if one.name.endswith("num_batches_tracked"):
        fits = found.size <= 1
    elif one.name.endswith("position_ids"):
        fits = np.array_equal(found, np.arange(found.size))
    elif one.name.endswith("attn.bias"):
        side = one.shape[-1]
        fits = np.array_equal(found.reshape(-1, side, side), np.tril(np.ones((1, side, side))))
    elif one.name.endswith("masked_bias"):
        fits = found.size == 1 and bool(found[0] <= -1000)
    else:
        wanted = _frequencies(found.size, parent)
        fits = wanted is not None and _are_close(found, wanted)
    return None if fits else f"{one.name} holds other numbers than the parent's configuration gives."


def _numbers(one: Matrix) -> Floats:
    return one.block(0, one.rows).values.reshape(-1)


def _are_close(found: Floats, wanted: Floats) -> bool:
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=_ROUNDING, atol=_NEAR_ZERO)


def _frequencies(count: int, parent: Path) -> Floats | None:
    """Rotary frequencies without scaling, `theta ** (-i / count)`; None where the config scales them or is not there."""
    try:
        config = read_json_object(parent / "config.json") if parent.is_dir() else {}
        config = config.get("text_config", config)
        scaling = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
        if scaling.get("rope_type", scaling.get("type", "default")) != "default":
            return None
        theta = float(scaling.get("rope_theta") or config.get("rope_theta") or 10000.0)
        return np.asarray(theta ** (-np.arange(count) / count), dtype=np.float32)
    except (ArtifactError, TypeError, ValueError, ZeroDivisionError, OverflowError, AttributeError):
        return None

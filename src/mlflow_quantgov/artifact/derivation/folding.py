"""Scales that a quantizer moved from one matrix into the one before it, as AWQ and SmoothQuant do.

A matrix behind a norm gets its input channels multiplied by s and the norm is divided by s; an output projection gets
its input channels multiplied by s and the rows of the value (or up) projection before it are divided by s. The model
computes the same. The first kind is read from the norms; the second from the rows, where every cell bounds the factor:
the factor is where most of these bounds agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix
from mlflow_quantgov.artifact.derivation.casts import Cast
from mlflow_quantgov.artifact.derivation.measure import Factors, Measured, scaled

_NORM = re.compile(r"^(?P<layer>.*layers\.\d+\.)(?P<norm>input_layernorm|post_attention_layernorm|"
                   r"pre_feedforward_layernorm)\.weight$")  # fmt: skip
_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.qkv_proj")
_FEED = re.compile(r"^(mlp\.(gate_proj|up_proj|gate_up_proj|gate)|mlp\.experts\.\d+\.(gate_proj|up_proj)|"
                   r"mlp\.(shared_expert_gate|shared_experts?\.(gate_proj|up_proj))|"
                   r"block_sparse_moe\.(gate|experts\.\d+\.(w1|w3)))$")  # fmt: skip
_BEFORE = {"self_attn.o_proj.weight": "self_attn.v_proj.weight", "down_proj.weight": "up_proj.weight"}
_OUTPUTS = ("o_proj.weight", "down_proj.weight", "w2.weight")
"""Matrices of a block that read no norm, but what others of the block computed."""
_OF_HEADS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm")
_LEAST_FACTOR = 2e-3
"""Norms that differ by less were not scaled by anybody: they were trained, or stored otherwise."""
_LEAST_ROWS = 0.1
FEW_ROWS = 0.01
"""Share of rows from which on factors are tried: nncf's AWQ scales the groups of the largest channels alone, 8 % of SmolLM2's rows."""
_LEAST_SLOPE = 0.01


def norm_before(name: str, norms: Iterable[str]) -> str | None:
    """The norm among some whose output a matrix multiplies."""
    for norm in norms:
        found = _NORM.match(norm)
        if not found or not name.startswith(found["layer"]):
            continue
        part = name[len(found["layer"]) :].removesuffix(".weight")
        sandwich = f"{found['layer']}pre_feedforward_layernorm.weight" in norms
        feeds = found["norm"] == "pre_feedforward_layernorm" or (
            found["norm"] == "post_attention_layernorm" and not sandwich
        )
        if (found["norm"] == "input_layernorm" and part in _ATTENTION) or (feeds and _FEED.match(part)):
            return norm
    return None


def is_foldable_norm(name: str, norms: Iterable[str], matrices: Iterable[str]) -> bool:
    """Whether a scale can be moved out of this norm: whatever reads it is known, and takes the scale back.

    Blocks of other layouts (attention and MLP side by side, norms behind them) are left alone.

    Args:
        name: The norm.
        norms: All norms.
        matrices: Names of all matrices.
    """
    found = _NORM.match(name)
    if not found:
        return False
    layer, known = found["layer"], set(norms)
    behind, before = (f"{layer}{place}_feedforward_layernorm.weight" for place in ("post", "pre"))
    needed = {f"{layer}input_layernorm.weight", f"{layer}post_attention_layernorm.weight"}
    if not needed <= known or (behind in known) != (before in known):
        return False
    return all(
        norm_before(one, known) is not None for one in matrices if one.startswith(layer) and not one.endswith(_OUTPUTS)
    )


def producer_of(name: str) -> str | None:
    """The matrix whose rows feed the columns of this one, with nothing but a product in between."""
    for consumer, producer in _BEFORE.items():
        if name.endswith(consumer):
            return name[: -len(consumer)] + producer
    return None


def is_plain_product(consumer: str, tensors: Iterable[str]) -> bool:
    """Whether nothing but a product stands between a matrix and the rows of the one before it.

    An up projection without a gate goes through the activation, and some models norm in between.

    Args:
        consumer: The matrix that would take the scale back.
        tensors: Names of all tensors.
    """
    block = consumer.rsplit(".", 2)[0] + "."
    beside = {one.removeprefix(block) for one in tensors if one.startswith(block)}
    if any("norm" in one and not one.startswith(_OF_HEADS) for one in beside):
        return False
    return not consumer.endswith("down_proj.weight") or "gate_proj.weight" in beside


def norm_factors(parent: Floats, child: Floats, shift: float = 0.0) -> Floats | None:
    """Factor per channel that the norm lost and the matrices behind it must have gained; None where there is none.

    Args:
        parent: The parent's norm, [channels].
        child: The quantized model's.
        shift: What the model adds to a stored norm before it multiplies with it (1 for Gemma).
    """
    if (child + shift == 0).any():
        return None
    factors = (parent + shift) / (child + shift)
    sound = np.isfinite(factors).all() and (factors > 0).all() and np.abs(factors - 1).max() > _LEAST_FACTOR
    return factors.astype(np.float32) if sound else None


def rows_were_scaled(found: Measured, least: float = _LEAST_ROWS) -> bool:
    """Whether more than a share of the rows differ from the parent's by factors of their own."""
    slopes = np.concatenate(found.slopes) if found.slopes else np.ones(1)
    noise = max(found.reachable_error, 1e-6) / np.sqrt(found.columns)
    return float((np.abs(slopes - np.median(slopes)) > _LEAST_SLOPE + 4 * noise).mean()) > least


def row_factors(child: Matrix, parent: Matrix, cast: Cast, factors: Factors) -> tuple[Floats, Floats]:
    """Factor of every row at which most of its weights lie in the cells of their codes.

    Returns:
        The factors, and half the relative width of the interval in which they may lie; both [rows].
    """
    middles, widths = [], []
    for start, stop in child.blocks():
        weights = scaled(cast(parent.block(start, stop).values), factors, start, stop)
        middle, width = _most_agreed(weights, child.block(start, stop))
        middles.append(middle)
        widths.append(width)
    return np.concatenate(middles), np.concatenate(widths)


def _most_agreed(weights: Floats, block: Block) -> tuple[Floats, Floats]:
    """Per row: each weight w with the cell [low, high] bounds the factor to [low / w, high / w]; where most overlap."""
    assert block.below is not None and block.above is not None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        one, other = (block.values - block.below) / weights, (block.values + block.above) / weights
    usable = np.isfinite(one) & np.isfinite(other) & (weights != 0)
    starts = np.where(usable, np.minimum(one, other), np.inf)
    ends = np.where(usable, np.maximum(one, other), np.inf)
    points = np.concatenate([starts, ends], axis=1)
    order = np.argsort(points, axis=1, kind="stable")
    entering = order < starts.shape[1]
    depth = np.cumsum(np.where(entering, 1, -1).astype(np.int32), axis=1)
    sorted_points = np.take_along_axis(points, order, axis=1)
    depth[~np.isfinite(sorted_points)] = 0
    best = np.argmax(depth, axis=1)[:, None]
    low = np.take_along_axis(sorted_points, best, axis=1)[:, 0]
    high = np.take_along_axis(sorted_points, np.minimum(best + 1, points.shape[1] - 1), axis=1)[:, 0]
    sound = np.isfinite(low) & np.isfinite(high) & (low > 0)
    low, high = np.where(sound, low, 1), np.where(sound, high, 1)
    middle = (low + high) / 2
    return middle.astype(np.float32), ((high - low) / (2 * middle)).astype(np.float32)

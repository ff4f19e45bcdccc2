"""Rotary positions, as transformers 4 and 5 write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlflow_quantgov.artifact.settings.windows import FULL, SLIDING
from mlflow_quantgov.artifact.settings.words import ANY, Values, agree

ROPE = {"rope_theta": "rope_theta", "rotary_emb_base": "rope_theta", "partial_rotary_factor": "partial_rotary_factor",
         "rotary_pct": "partial_rotary_factor"}  # fmt: skip
_EXTENDED = ("dynamic", "yarn", "longrope")
"""Kinds of scaling that compute with the longest context, too."""
DEFAULT_THETA = 10000.0


def rope(merged: Values, own: Values) -> Values:
    """Rotary positions, as transformers 4 (keys of their own) and 5 (one object, perhaps by kind of layer) write them.

    Args:
        merged: The config with the defaults of its model type.
        own: The config as it is written.
    """
    base = {new: merged[old] for old, new in ROPE.items() if merged.get(old) is not None}
    newer, older = merged.get("rope_parameters"), merged.get("rope_scaling")
    if "rope_parameters" not in own and ("rope_theta" in own or "rope_scaling" in own):
        kept = newer.get("partial_rotary_factor") if isinstance(newer, dict) else None
        base, newer = {**({"partial_rotary_factor": kept} if kept else {}), **base}, None
    kinds = {key: one for key, one in newer.items() if isinstance(one, dict)} if isinstance(newer, dict) else {}
    if kinds:
        found: Values = {}
        for kind, one in kinds.items():
            found |= _flat(f"rope.{kind}.", {**one})
        return found
    scaling = {**(older if isinstance(older, dict) else {}), **(newer if isinstance(newer, dict) else {})}
    full = _flat("", {**base, **scaling, **_context(merged, scaling)})
    local = merged.get("rope_local_base_freq")
    if local is None:
        return {f"rope.{key}": value for key, value in full.items()}
    return {f"rope.{FULL}.{key}": value for key, value in full.items()} | {f"rope.{SLIDING}.rope_theta": local}


def contradiction(own: Values) -> Values:
    """Rotary settings of transformers 4 that say something else than those of transformers 5 beside them.

    Args:
        own: The config as it is written.
    """
    newer, older, found = own.get("rope_parameters"), own.get("rope_scaling"), {}
    if not isinstance(newer, dict):
        return {}
    theta, other = own.get("rope_theta"), newer.get("rope_theta")
    if theta is not None and other is not None and not agree(theta, other):
        found["rope_theta"] = theta
    nested = any(isinstance(one, dict) for one in newer.values())
    if isinstance(older, dict) and not nested and _flat("", {**newer, **older}) != _flat("", newer):
        found["rope_scaling"] = older
    return found


def _context(merged: Values, scaling: Values) -> Values:
    """Lengths that scaling computes with, where a config keeps them outside; the first one is the longest where it is not said."""
    kind, longest = _kind(scaling), merged.get("max_position_embeddings")
    if kind is None or kind == "linear":
        return {}
    first = merged.get("original_max_position_embeddings", scaling.get("original_max_position_embeddings", longest))
    found = {
        "original_max_position_embeddings": first,
        "max_position_embeddings": longest if kind in _EXTENDED else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _kind(rope: Values) -> Any:
    """The kind of scaling; None for none."""
    kind = rope.get("rope_type", rope.get("type"))
    return None if kind == "default" else kind


def _flat(prefix: str, rope: Values) -> Values:
    found = {key: value for key, value in rope.items() if key != "type"}
    kind = _kind(rope)
    found.pop("rope_type", None)
    if kind is not None:
        found["rope_type"] = kind
    else:
        found = {key: found[key] for key in ("rope_theta", "partial_rotary_factor") if key in found}
    if found.get("partial_rotary_factor") == 1:
        del found["partial_rotary_factor"]
    if found:
        found.setdefault("rope_theta", DEFAULT_THETA)
    return {f"{prefix}{key}": value for key, value in found.items()}


def attention_factor(config: Mapping[str, Any]) -> Any:
    """What scaled positions multiply attention with, which GGUF writes out and a config leaves to its kind of scaling.

    Args:
        config: Values of a config's settings.
    """
    kind, said = config.get("rope.rope_type"), config.get("rope.attention_factor")
    if said is not None or kind not in {"longrope", "su", "yarn"}:
        return said or 1.0
    first, longest = (config.get(f"rope.{key}max_position_embeddings") for key in ("original_", ""))
    if kind == "yarn" or not (isinstance(first, int) and isinstance(longest, int) and longest >= first > 1):
        return ANY
    # Source: LongRoPE (Ding et al. 2024), as transformers' modeling_rope_utils.py has it.
    return math.sqrt(1 + math.log(longest / first) / math.log(first))

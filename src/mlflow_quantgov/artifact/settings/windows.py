"""Sliding windows of attention: whether one is used, and in which layers."""

from __future__ import annotations

from mlflow_quantgov.artifact.settings.keys import defaults
from mlflow_quantgov.artifact.settings.words import Values

FULL, SLIDING = "full_attention", "sliding_attention"
ALONE = frozenset({"max_window_layers", "sliding_window_pattern", "_sliding_window_pattern", "layer_types"})
"""What matters with a sliding window only."""
_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}
"""Every so many layers one sees everything, where the code says so and not the config."""


def window(merged: Values) -> Values:
    """The sliding window, if one is used, and the layers that have it.

    Args:
        merged: The config with the defaults of its model type.
    """
    size, layers = merged.get("sliding_window"), merged.get("num_hidden_layers")
    # Of the other model types nobody looks at the switch.
    has_switch = "use_sliding_window" in defaults().get(str(merged.get("model_type")), {})
    if not isinstance(size, int) or (has_switch and merged.get("use_sliding_window") is False):
        return {"sliding_window": None, "use_sliding_window": None}
    kinds = merged.get("layer_types")
    if not isinstance(kinds, list) and isinstance(layers, int):
        kinds = _kinds_of_layers(merged, min(layers, 10_000))
    found: Values = {"sliding_window": size, "use_sliding_window": None}
    if isinstance(kinds, list) and any(kind != SLIDING for kind in kinds):
        found["layer_types"] = kinds
    return found


def _kinds_of_layers(merged: Values, layers: int) -> list[str]:
    """Kinds of attention where they are not listed."""
    names = ("sliding_window_pattern", "_sliding_window_pattern")
    pattern = next((merged[name] for name in names if name in merged), _PATTERNS.get(str(merged.get("model_type"))))
    first = merged.get("max_window_layers")
    if merged.get("use_sliding_window") is True and isinstance(first, int):
        return [SLIDING if at >= first else FULL for at in range(layers)]
    if not isinstance(pattern, int) or pattern < 1:
        return []
    return [SLIDING if (at + 1) % pattern else FULL for at in range(layers)]

"""Writes what transformers fills in where a config leaves a setting out, by model type.

    python tools/write_config_defaults.py

Needs the extra `transformers`. Sizes are left out: tensors tell them.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mlflow_quantgov.artifact import settings

TARGET = Path(settings.__file__).with_name("config_defaults.json")
SIZES = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "layer_types", "n_embd", "n_layer", "n_head", "n_inner", "n_positions", "n_ctx", "ffn_dim", "num_layers"}  # fmt: skip
WITHOUT_DEFAULTS = {"gemma4_assistant", "musicgen", "musicgen_melody"}
"""No configuration of their own without that of another model."""


def defaults_of(model_type: str) -> dict[str, Any]:
    """Scalars and rotary settings that differ from nothing; None for what the class computes from others.

    `text_config` tells types whose text part is a config of its own.
    """
    found = AutoConfig.for_model(model_type)
    text = found.get_text_config() if hasattr(found, "get_text_config") else found
    given = inspect.signature(type(text).__init__).parameters
    values: dict[str, Any] = {}
    for key, value in text.to_dict().items():
        if _is_setting(key, value):
            fixed = key == "rope_parameters" or (key in given and given[key].default == value)
            values[key] = value if fixed else None
    if text is not found or "text_config" in type(found).sub_configs:
        values["text_config"] = True
    # Everywhere it is the width over the heads where nothing else is said.
    if values.get("head_dim", 0) is None:
        del values["head_dim"]
    return dict(sorted(values.items()))


def _is_setting(key: str, value: Any) -> bool:
    if key in SIZES or settings.is_ignored(key):
        return False
    if key == "use_sliding_window":
        return True  # whose types alone look at it
    if key == "rope_parameters":
        return bool(value)
    return isinstance(value, str | int | float) and value not in (0, "", False)


def main() -> None:
    """Write the file."""
    names = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - WITHOUT_DEFAULTS)
    found = {name: defaults_of(name) for name in names}
    lines = [f" {json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

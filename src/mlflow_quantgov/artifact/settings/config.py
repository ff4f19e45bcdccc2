"""The computation that a Hugging Face config describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow_quantgov.artifact.settings.keys import computed, defaults, is_ignored
from mlflow_quantgov.artifact.settings.rope import ROPE, contradiction, rope
from mlflow_quantgov.artifact.settings.windows import ALONE, window
from mlflow_quantgov.artifact.settings.words import ANY, Settings, Values, is_nothing

_FROM_PADDING = re.compile(
    r"^(.*roberta.*|camembert|mpnet|longformer|data2vec-text|xmod|ibert|lilt|luke|esm|markuplm|m2m_100|nllb-moe|fsmt)$"
)
"""Model types that count positions from the number of the padding token."""


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a config its language model is built from: of a multimodal one the part for texts.

    Args:
        config: `config.json`; of a model type that has no parts, what stands in one is nobody's.
    """
    part, known = config.get("text_config"), defaults().get(str(config.get("model_type")))
    has_parts = known is None or "text_config" in known
    return part if isinstance(part, dict) and has_parts else config


def settings_of_config(config: Mapping[str, Any], *, graph: bool = False) -> Settings:
    """The computation that a Hugging Face config describes; of a multimodal model, its text part.

    Args:
        config: `config.json`.
        graph: Whether it lies beside a graph, and nothing is filled in.
    """
    if not config:
        return Settings()
    own = dict(text_part(config))
    kind = str(own.get("model_type"))
    merged = own if graph else {**defaults().get(kind, {}), **own}
    found = {key: value for key, value in merged.items() if not is_ignored(key) and key not in ROPE}
    for key in ("rope_scaling", "rope_parameters", "rope_local_base_freq", *ALONE):
        found.pop(key, None)
    found |= rope(merged, own) | contradiction(own)
    found |= window(merged)
    found["architectures"] = _architectures(config)
    found.setdefault("model_type", ANY)
    if _FROM_PADDING.match(kind) and not graph:
        found["pad_token_id"] = own.get("pad_token_id", 1)
    _respell(found, merged)
    heads, width = merged.get("num_attention_heads"), merged.get("hidden_size")
    if "qk_rope_head_dim" in merged:
        found.pop("head_dim", None)  # the width of the rotary part, by version
    elif not found.get("head_dim") and isinstance(heads, int) and isinstance(width, int) and heads:
        found["head_dim"] = width // heads
    found |= dict.fromkeys((key for key in computed(kind) if own.get(key) is None), ANY)
    values = {key: value for key, value in found.items() if not is_nothing(value)}
    if graph:
        return Settings(
            {key: value for key, value in values.items() if value is not ANY and key != "model_type"}, "graph"
        )
    tied = next(
        (one["tie_word_embeddings"] for one in (config, own) if isinstance(one.get("tie_word_embeddings"), bool)), None
    )
    return Settings(values, "config", tied)


def _architectures(config: Mapping[str, Any]) -> Any:
    """Classes of the model; of a multimodal one the text part may be saved alone."""
    listed = config.get("architectures")
    if (
        not isinstance(listed, list)
        or not listed
        or any(str(one).endswith("ForConditionalGeneration") for one in listed)
    ):
        return ANY
    return listed


def _respell(found: Values, merged: Values) -> None:
    """Names and values that transformers 5 writes otherwise."""
    if "num_experts" in found:
        found.setdefault("num_local_experts", found.pop("num_experts"))
    if merged.get("model_type") == "gemma" and found.get("hidden_act") == "gelu":
        found["hidden_act"] = "gelu_pytorch_tanh"

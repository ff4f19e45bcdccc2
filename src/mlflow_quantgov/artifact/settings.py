"""Settings that decide what a model computes from its weights, in words that two versions of a config share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What one side says about the computation."""

    values: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    """Whether what it does not say is the default of its architecture, as in a config, and not merely unsaid."""


_SAME_MODEL = frozenset({
    "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "architectures", "attention_dropout", "attn_implementation",
    "attn_pdrop", "auto_map", "bos_token_id", "chunk_size_feed_forward", "classifier_dropout", "compression_config", "dropout", "dtype",
    "embd_pdrop", "embedding_dropout", "eos_token_id", "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob", "id2label",
    "attention_probs_dropout_prob", "initializer_factor", "initializer_range", "is_decoder", "label2id", "layerdrop", "model_name",
    "name_or_path", "output_attentions", "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp", "problem_type",
    "quantization_config", "resid_pdrop", "return_dict", "router_aux_loss_coef", "router_jitter_noise", "sep_token_id",
    "task_specific_params", "torch_dtype", "torchscript", "transformers_version", "unk_token_id", "use_cache", "use_return_dict",
    "text_config", "vision_config", "audio_config", "vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads",
    "num_key_value_heads", "n_layer", "n_embd", "n_head", "tie_word_embeddings", "layer_types", "max_window_layers",
})  # fmt: skip
"""Keys that may differ between a model and its parent: they compute nothing at inference, or are compared elsewhere."""
_ALIASES = {
    "rms_norm_eps": "norm_eps", "layer_norm_eps": "norm_eps", "layer_norm_epsilon": "norm_eps", "norm_epsilon": "norm_eps",
    "layernorm_epsilon": "norm_eps", "hidden_activation": "hidden_act", "activation_function": "hidden_act",
    "n_inner": "intermediate_size",
}  # fmt: skip
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters", "rotary_emb_base", "use_sliding_window")
_DECISIVE = frozenset({
    "attention_multiplier", "attn_logit_softcapping", "embedding_multiplier", "final_logit_softcapping", "head_dim", "hidden_act",
    "intermediate_size", "logit_scale", "logits_scaling", "norm_eps", "norm_topk_prob", "num_experts_per_tok", "partial_rotary_factor",
    "query_pre_attn_scalar", "residual_multiplier", "rope", "routed_scaling_factor", "sliding_window",
})  # fmt: skip
"""Keys that one side alone may not set to what a model without them does not do."""
_NEUTRAL = (False, 0, 1, "default")
_TIED = "tie_word_embeddings"


def settings_of_config(config: Mapping[str, Any]) -> Settings:
    """What a Hugging Face config says about the computation, of multimodal models about their text part."""
    part = config.get("text_config")
    text = part if isinstance(part, dict) else config
    found = {
        _ALIASES.get(key, key): value
        for key, value in text.items()
        if key not in _SAME_MODEL and key not in _ROPE and value is not None
    }
    if text.get("use_sliding_window") is False:
        found.pop("sliding_window", None)
    rope = _rope(text)
    if rope is not None:
        if "partial_rotary_factor" in rope:
            found["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        found["rope"] = rope
    heads, width = text.get("num_attention_heads"), text.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int) and heads > 0:
        found.setdefault("head_dim", width // heads)
    if isinstance(tied := config.get("tie_word_embeddings", text.get("tie_word_embeddings")), bool):
        found[_TIED] = tied
    return Settings(found, whole=True) if text.get("model_type") else Settings()


def settings_of_gguf(metadata: Mapping[str, Any]) -> Settings:
    """What a GGUF file says of the same; the rest is the runtime's to know by the architecture."""
    own = metadata.get("general.architecture")
    found: dict[str, Any] = {}
    for key in (f"{own}.attention.layer_norm_rms_epsilon", f"{own}.attention.layer_norm_epsilon"):
        if _is_number(metadata.get(key)):
            found["norm_eps"] = metadata[key]
    if _is_number(metadata.get(f"{own}.rope.freq_base")):
        found["rope"] = {"theta": metadata[f"{own}.rope.freq_base"]}
    return Settings(found)


def differences(child: Settings, parent: Settings) -> list[str]:
    """Where two models compute otherwise from the same weights, in words; empty where nothing is known to differ."""
    mine, theirs = child.values, parent.values
    problems = []
    for key in sorted(mine.keys() & theirs.keys()):
        left, right = mine[key], theirs[key]
        if key == _TIED:
            # Untying stores the output matrix, which is compared; tying drops it.
            differs = left is True and right is False
        elif isinstance(left, dict) and isinstance(right, dict) and not (child.whole and parent.whole):
            differs = any(not _alike(left[part], right[part]) for part in left.keys() & right.keys())
        else:
            differs = not _alike(left, right)
        if differs:
            problems.append(_said(key, left, right))
    if child.whole and parent.whole:
        for key in sorted((mine.keys() ^ theirs.keys()) & _DECISIVE):
            value = mine.get(key, theirs.get(key))
            if not any(_alike(value, neutral) for neutral in _NEUTRAL):
                problems.append(_said(key, mine.get(key), theirs.get(key)))
    return problems


def _rope(text: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rotary positions, however the version that wrote the config spells them; None where it says nothing, or says it per layer."""
    said = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if not isinstance(said, dict) or any(isinstance(one, dict) for one in said.values()):
        return None
    rest = {
        key: value
        for key, value in said.items()
        if key not in {"rope_theta", "rope_type", "type"} and value is not None
    }
    spelled = [
        one for one in (said.get("rope_theta"), text.get("rope_theta", text.get("rotary_emb_base"))) if one is not None
    ]
    # Two that differ are read differently by different versions.
    theta = spelled if len(spelled) == 2 and not _alike(*spelled) else spelled[0] if spelled else None
    kind = said.get("rope_type", said.get("type", "default"))
    if theta is None and kind == "default" and not rest:
        return None
    return {"theta": theta, "type": kind, **rest}


def _alike(one: Any, other: Any) -> bool:
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=1e-6)  # GGUF stores single precision
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


def _said(key: str, mine: Any, theirs: Any) -> str:
    left, right = (json.dumps(one, default=str)[:80] for one in (mine, theirs))
    return f"The config's {key[:60]} is {left}, the parent's is {right}."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

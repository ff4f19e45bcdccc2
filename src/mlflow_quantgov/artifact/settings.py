"""What a config says of the computation beside the weights, in words that two tools or versions share.

Two configs are compared key by key; of what a config leaves out, transformers fills in a default (`config_defaults.json`,
written by `tools/write_config_defaults.py`), and nothing, zero or false means that there is none of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

Settings = dict[str, Any]
_IGNORED = re.compile(
    r"^(_.*|dtype|torch_dtype|transformers_version|quantization_config|compression_config|use_cache|architectures|model_type"
    r"|hidden_size|n_embd|num_hidden_layers|n_layer|num_attention_heads|n_head|num_key_value_heads|n_ctx|use_flash.*"
    r"|vocab_size|tie_word_embeddings|.*_token_id|.*_token_ids|.*_token_index|initializer_.*|.*_init|init_std|.*dropout.*|.*_drop"
    r"|.*_pdrop|output_.*|return_dict|gradient_.*|id2label|label2id|num_labels|problem_type|task_specific_params|torchscript"
    r"|tokenizer_class|finetuning_task|pretraining_tp|router_aux_loss_coef|aux_loss_alpha|seq_aux|summary_.*|classifier_.*"
    r"|cache_implementation|chunk_size_feed_forward|cross_attention_.*|tf_legacy_loss|use_bfloat16|pruned_heads|prefix"
    r"|is_decoder|is_encoder_decoder|add_cross_attention|max_length|min_length|do_sample|temperature|top_k|top_p|typical_p"
    r"|num_beams|num_beam_groups|diversity_penalty|repetition_penalty|length_penalty|no_repeat_ngram_size"
    r"|encoder_no_repeat_ngram_size|bad_words_ids|num_return_sequences|early_stopping|remove_invalid_values"
    r"|exponential_decay_length_penalty|suppress_tokens|begin_suppress_tokens|forced_.*|attn_implementation|text_config"
    r"|vision_config|audio_config|auto_map|unsloth_.*|keys_to_ignore_at_inference|base_model_.*|ep_plan|rescale_layer"
    r"|sep_token_id|router_jitter_noise|num_nextn_predict_layers|max_position_embeddings|torch_compile.*|use_mambapy)$"
)
"""What may differ: types, tokens, training, generation, what is compared elsewhere, and what a loader knows by itself."""
_ROPE = {"rope_theta": "rope_theta", "rotary_emb_base": "rope_theta", "partial_rotary_factor": "partial_rotary_factor",
         "rotary_pct": "partial_rotary_factor"}  # fmt: skip
_ALONE = frozenset({"max_window_layers", "sliding_window_pattern", "_sliding_window_pattern", "layer_types"})
"""What matters with a sliding window only."""
_OF_GGUF = {
    "rope.freq_base": "rope.rope_theta?|rope.full_attention.rope_theta?",
    "rope.scaling.factor": "rope.factor|rope.full_attention.factor",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps?|layer_norm_epsilon?|norm_eps?|norm_epsilon?",
    "attention.layer_norm_epsilon": "layer_norm_eps?|layer_norm_epsilon?|norm_eps?|norm_epsilon?",
    "attention.key_length": "head_dim?", "feed_forward_length": "intermediate_size?|n_inner?",
    "expert_used_count": "num_experts_per_tok|experts_per_token|moe_topk", "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
    "logit_scale": "logit_scale|logits_scaling", "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier", "attention.scale": "attention_multiplier",
    "expert_weights_scale": "routed_scaling_factor",
}  # fmt: skip
"""Keys of GGUF's metadata to those of configs; with a question mark where a config may not have one."""
_FULL, _SLIDING = "full_attention", "sliding_attention"
_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}
"""Every so many layers one sees everything, where the code says so and not the config."""
_ANY = "*"
"""Agrees with everything: computed from other settings where it is left out."""
_PRECISION = 1e-5
_DEFAULT_THETA = 10000.0


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The computation that a Hugging Face config describes; of a multimodal model, its text part.

    Args:
        config: `config.json`.
    """
    if not config:
        return {}
    part = config.get("text_config")
    own = dict(part) if isinstance(part, dict) else dict(config)
    merged = {**_defaults().get(str(own.get("model_type")), {}), **own}
    found = {key: value for key, value in merged.items() if not is_ignored(key) and key not in _ROPE}
    for key in ("rope_scaling", "rope_parameters", "rope_local_base_freq", *_ALONE):
        found.pop(key, None)
    found |= _rope(merged, own) | _contradiction(own)
    found |= _window(merged)
    found["architectures"] = _architectures(config)
    _respell(found, merged)
    heads, width = merged.get("num_attention_heads"), merged.get("hidden_size")
    if "qk_rope_head_dim" in merged:
        found.pop("head_dim", None)  # the width of the rotary part, by version
    elif not found.get("head_dim") and isinstance(heads, int) and isinstance(width, int) and heads:
        found["head_dim"] = width // heads
    found |= {key: _ANY for key in _computed().get(str(own.get("model_type")), ()) if key not in own}
    return {key: value for key, value in found.items() if not _is_nothing(value)}


def settings_of_gguf(metadata: Mapping[str, Any]) -> Settings:
    """The same of a GGUF file's metadata, as far as its keys have counterparts; their names where there are several.

    Args:
        metadata: Of the file.
    """
    own = str(metadata.get("general.architecture"))
    found: Settings = {}
    for key, names in _OF_GGUF.items():
        value = metadata.get(f"{own}.{key}")
        if isinstance(value, int | float) and not _is_nothing(value):
            found[names] = value
    if own == "deepseek2" or f"{own}.expert_count" in metadata:
        found = {
            names: value for names, value in found.items() if names not in {"head_dim?", "intermediate_size?|n_inner?"}
        }
    if "granite" not in own:
        found.pop("attention_multiplier", None)
    found.setdefault(_OF_GGUF["rope.freq_base"], _DEFAULT_THETA)
    window, context = found.get("sliding_window"), metadata.get(f"{own}.context_length")
    if window is not None and isinstance(context, int) and window >= context:
        del found["sliding_window"]
    kind = metadata.get(f"{own}.rope.scaling.type")
    if isinstance(kind, str) and kind not in {"none", "longrope"}:
        found["rope.rope_type"] = kind
    return found


def is_ignored(key: str) -> bool:
    """Whether two configs may differ in a key."""
    return bool(_IGNORED.match(key))


def differences(mine: Settings, theirs: Settings, *, only: bool = False) -> list[tuple[str, Any, Any]]:
    """Keys that do not agree, with both values; None for what is not there.

    Args:
        mine: Of the quantized model.
        theirs: Of its parent.
        only: Whether to compare nothing but what the first names, as a container with fewer words does.
    """
    if only:
        return [one for key in sorted(mine) if (one := _of_names(key, mine[key], theirs)) is not None]
    keys = sorted(mine.keys() | theirs.keys())
    return [(key, mine.get(key), theirs.get(key)) for key in keys if not _agree(mine.get(key), theirs.get(key))]


def _of_names(names: str, value: Any, theirs: Settings) -> tuple[str, Any, Any] | None:
    """A setting that a config may call this or that; with a question mark one that it may lack."""
    known = [name.rstrip("?") for name in names.split("|")]
    name = next((one for one in known if one in theirs), None)
    if name is None:
        return None if names.endswith("?") else (known[0], value, None)
    return None if _agree(value, theirs[name]) else (name, value, theirs[name])


def _architectures(config: Mapping[str, Any]) -> Any:
    """Classes of the model; of a multimodal one the text part may be saved alone."""
    listed = config.get("architectures")
    if (
        not isinstance(listed, list)
        or not listed
        or any(str(one).endswith("ForConditionalGeneration") for one in listed)
    ):
        return _ANY
    return listed


def _rope(merged: dict[str, Any], own: dict[str, Any]) -> Settings:
    """Rotary positions, as transformers 4 (keys of their own) and 5 (one object, perhaps by kind of layer) write them."""
    base = {new: merged[old] for old, new in _ROPE.items() if merged.get(old) is not None}
    newer, older = merged.get("rope_parameters"), merged.get("rope_scaling")
    if "rope_parameters" not in own and ("rope_theta" in own or "rope_scaling" in own):
        kept = newer.get("partial_rotary_factor") if isinstance(newer, dict) else None
        base, newer = {**({"partial_rotary_factor": kept} if kept else {}), **base}, None
    kinds = {key: one for key, one in newer.items() if isinstance(one, dict)} if isinstance(newer, dict) else {}
    if kinds:
        found: Settings = {}
        for kind, one in kinds.items():
            found |= _flat(f"rope.{kind}.", {**one})
        return found
    scaling = {**(older if isinstance(older, dict) else {}), **(newer if isinstance(newer, dict) else {})}
    full = _flat("", {**base, **scaling, **_context(merged, scaling)})
    local = merged.get("rope_local_base_freq")
    if local is None:
        return {f"rope.{key}": value for key, value in full.items()}
    return {f"rope.{_FULL}.{key}": value for key, value in full.items()} | {f"rope.{_SLIDING}.rope_theta": local}


def _respell(found: Settings, merged: dict[str, Any]) -> None:
    """Names and values that transformers 5 writes otherwise."""
    if "num_experts" in found:
        found.setdefault("num_local_experts", found.pop("num_experts"))
    if merged.get("model_type") == "gemma" and found.get("hidden_act") == "gelu":
        found["hidden_act"] = "gelu_pytorch_tanh"


def _contradiction(own: dict[str, Any]) -> Settings:
    """Rotary settings of transformers 4 that say something else than those of transformers 5 beside them."""
    newer, older, found = own.get("rope_parameters"), own.get("rope_scaling"), {}
    if not isinstance(newer, dict):
        return {}
    theta, other = own.get("rope_theta"), newer.get("rope_theta")
    if theta is not None and other is not None and not _agree(theta, other):
        found["rope_theta"] = theta
    nested = any(isinstance(one, dict) for one in newer.values())
    if isinstance(older, dict) and not nested and _flat("", {**newer, **older}) != _flat("", newer):
        found["rope_scaling"] = older
    return found


def _context(merged: dict[str, Any], scaling: dict[str, Any]) -> Settings:
    """The length that scaling starts from, where a config keeps it outside."""
    length = merged.get("original_max_position_embeddings")
    return {"original_max_position_embeddings": length} if length is not None and _kind(scaling) else {}


def _kind(rope: dict[str, Any]) -> Any:
    """The kind of scaling; None for none."""
    kind = rope.get("rope_type", rope.get("type"))
    return None if kind == "default" else kind


def _flat(prefix: str, rope: dict[str, Any]) -> Settings:
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
        found.setdefault("rope_theta", _DEFAULT_THETA)
    return {f"{prefix}{key}": value for key, value in found.items()}


def _window(merged: dict[str, Any]) -> Settings:
    """The sliding window, if one is used, and the layers that have it."""
    size, layers = merged.get("sliding_window"), merged.get("num_hidden_layers")
    if not isinstance(size, int) or merged.get("use_sliding_window") is False:
        return {"sliding_window": None, "use_sliding_window": None}
    kinds = merged.get("layer_types")
    if not isinstance(kinds, list) and isinstance(layers, int):
        kinds = _kinds_of_layers(merged, min(layers, 10_000))
    found: Settings = {"sliding_window": size, "use_sliding_window": None}
    if isinstance(kinds, list) and any(kind != _SLIDING for kind in kinds):
        found["layer_types"] = kinds
    return found


def _kinds_of_layers(merged: dict[str, Any], layers: int) -> list[str]:
    """Kinds of attention where they are not listed."""
    names = ("sliding_window_pattern", "_sliding_window_pattern")
    pattern = next((merged[name] for name in names if name in merged), _PATTERNS.get(str(merged.get("model_type"))))
    first = merged.get("max_window_layers")
    if merged.get("use_sliding_window") is True and isinstance(first, int):
        return [_SLIDING if at >= first else _FULL for at in range(layers)]
    if not isinstance(pattern, int) or pattern < 1:
        return []
    return [_SLIDING if (at + 1) % pattern else _FULL for at in range(layers)]


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value in (0, "", [], {})


def _agree(one: Any, other: Any) -> bool:
    if _ANY in (one, other):
        return True
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= _PRECISION * max(abs(one), abs(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    return bool(one == other)


@lru_cache(maxsize=1)
def _written() -> dict[str, Settings]:
    text = files("mlflow_quantgov.artifact").joinpath("config_defaults.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Settings]:
    """Of each model type what transformers fills in."""
    return {kind: {key: value for key, value in one.items() if value is not None} for kind, one in _written().items()}


@lru_cache(maxsize=1)
def _computed() -> dict[str, tuple[str, ...]]:
    """Of each model type what transformers computes from other settings."""
    return {kind: tuple(key for key, value in one.items() if value is None) for kind, one in _written().items()}

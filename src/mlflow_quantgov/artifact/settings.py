"""What a config says of the computation beside the weights, in words that two tools or versions share.

Two configs are compared key by key; of what a config leaves out, transformers fills in a default (`config_defaults.json`,
written by `tools/write_config_defaults.py`), and nothing, zero or false means that there is none of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

Values = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What one side says of the computation."""

    values: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["none", "config", "gguf", "graph"] = "none"
    """Whose words these are: a config's are whole, with the defaults of its model type filled in; GGUF's metadata and the config
    beside a graph, which computes by itself, say only some of it."""
    ties: bool | None = None
    """Whether the output matrix is the embedding; None where nothing is said."""


_IGNORED = re.compile(
    r"^(_(?!remove_final_layer_norm$).*|dtype|torch_dtype|transformers_version|quantization_config|compression_config|use_cache|architectures"
    r"|name_or_path|model_name|hidden_size|n_embd|num_hidden_layers|n_layer|num_attention_heads|n_head|num_key_value_heads|n_ctx|use_flash.*"
    r"|vocab_size|tie_word_embeddings|.*_token_id|.*_token_ids|.*_token_index|initializer_.*|.*_init|init_std|(?!token_dropout$).*dropout.*|.*_drop"
    r"|.*_pdrop|.*layerdrop|output_(attentions|hidden_states|past|scores|logits|.*_logits|retrieved|segmentation|a3_attentions)|return_dict|use_return_dict|gradient_.*|id2label|label2id|num_labels|problem_type|task_specific_params|torchscript"
    r"|tokenizer_class|finetuning_task|pretraining_tp|router_aux_loss_coef|aux_loss_alpha|seq_aux|summary_.*|classifier_(?!pooling$|activation$).*"
    r"|cache_implementation|chunk_size_feed_forward|cross_attention_.*|tf_legacy_loss|use_bfloat16|pruned_heads|prefix"
    r"|is_encoder_decoder|add_cross_attention|max_length|min_length|do_sample|temperature|top_k|top_p|typical_p"
    r"|num_beams|num_beam_groups|diversity_penalty|repetition_penalty|length_penalty|no_repeat_ngram_size"
    r"|encoder_no_repeat_ngram_size|bad_words_ids|num_return_sequences|early_stopping|remove_invalid_values"
    r"|exponential_decay_length_penalty|suppress_tokens|begin_suppress_tokens|forced_.*|attn_implementation|text_config"
    r"|vision_config|audio_config|auto_map|unsloth_.*|keys_to_ignore_at_inference|base_model_.*|ep_plan|rescale_layer"
    r"|sep_token_id|router_jitter_noise|num_nextn_predict_layers|max_position_embeddings|torch_compile.*|transformers\.js_config|use_mambapy|transformers_weights)$"
)
"""What may differ: types, tokens, training, generation, what is compared elsewhere, and what a loader knows by itself."""
_ROPE = {"rope_theta": "rope_theta", "rotary_emb_base": "rope_theta", "partial_rotary_factor": "partial_rotary_factor",
         "rotary_pct": "partial_rotary_factor"}  # fmt: skip
_ALONE = frozenset({"max_window_layers", "sliding_window_pattern", "_sliding_window_pattern", "layer_types"})
"""What matters with a sliding window only."""
_OF_GGUF = {
    "rope.freq_base": "rope.rope_theta?|rope.full_attention.rope_theta?",
    "rope.scale_linear": "rope.factor|rope.full_attention.factor",
    "rope.scaling.factor": "rope.factor|rope.full_attention.factor",
    "rope.scaling.attn_factor": "rope.attention_factor",
    "rope.scaling.original_context_length": "rope.original_max_position_embeddings?",
    "rope.scaling.yarn_beta_fast": "rope.beta_fast", "rope.scaling.yarn_beta_slow": "rope.beta_slow",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps?|layer_norm_epsilon?|norm_eps?|norm_epsilon?",
    "attention.layer_norm_epsilon": "layer_norm_eps?|layer_norm_epsilon?|norm_eps?|norm_epsilon?",
    "attention.key_length": "head_dim?", "feed_forward_length": "intermediate_size?|n_inner?",
    "expert_used_count": "num_experts_per_tok|experts_per_token|moe_topk", "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
    "logit_scale": "logit_scale|logits_scaling", "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier", "attention.scale": "attention_multiplier",
    "expert_weights_scale": "routed_scaling_factor",
}  # fmt: skip
"""Keys of GGUF's metadata to those of configs; with a question mark where a config may not have one. Of two keys for one thing
llama.cpp takes the later one."""
_USUAL = {
    "rope.scale_linear": 1,
    "rope.scaling.attn_factor": 1,
    "rope.scaling.yarn_beta_fast": 32,
    "rope.scaling.yarn_beta_slow": 1,
}
"""What llama.cpp computes with where nothing is written."""
_GATES = {1: "softmax", 2: "sigmoid"}
_ENCODERS = re.compile(r"bert|embed|^t5encoder$|^dream$|^llada")
"""Architectures of GGUF whose tokens see those behind them."""
_FROM_PADDING = re.compile(
    r"^(.*roberta.*|camembert|mpnet|longformer|data2vec-text|xmod|ibert|lilt|luke|esm|markuplm|m2m_100|nllb-moe|fsmt)$"
)
"""Model types that count positions from the number of the padding token."""
_TIED, _SWITCH = "tie_word_embeddings", "use_sliding_window"
_FULL, _SLIDING = "full_attention", "sliding_attention"
_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}
"""Every so many layers one sees everything, where the code says so and not the config."""
_PRECISION = 1e-6
"""Relative; GGUF stores single precision."""
_EXTENDED = ("dynamic", "yarn", "longrope")
"""Kinds of scaling that compute with the longest context, too."""


class _Unsaid(Enum):
    """No value of a config, so that no config can write it."""

    ANY = "computed from other settings where it is left out: agrees with everything"


_ANY = _Unsaid.ANY
_DEFAULT_THETA = 10000.0


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a config its language model is built from: of a multimodal one the part for texts.

    Args:
        config: `config.json`; of a model type that has no parts, what stands in one is nobody's.
    """
    part, known = config.get("text_config"), _written().get(str(config.get("model_type")))
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
    merged = own if graph else {**_written().get(kind, {}), **own}
    found = {key: value for key, value in merged.items() if not is_ignored(key) and key not in _ROPE}
    for key in ("rope_scaling", "rope_parameters", "rope_local_base_freq", *_ALONE):
        found.pop(key, None)
    found |= _rope(merged, own) | _contradiction(own)
    found |= _window(merged)
    found["architectures"] = _architectures(config)
    found.setdefault("model_type", _ANY)
    if _FROM_PADDING.match(kind) and not graph:
        found["pad_token_id"] = own.get("pad_token_id", 1)
    _respell(found, merged)
    heads, width = merged.get("num_attention_heads"), merged.get("hidden_size")
    if "qk_rope_head_dim" in merged:
        found.pop("head_dim", None)  # the width of the rotary part, by version
    elif not found.get("head_dim") and isinstance(heads, int) and isinstance(width, int) and heads:
        found["head_dim"] = width // heads
    found |= dict.fromkeys((key for key in _computed(kind) if own.get(key) is None), _ANY)
    values = {key: value for key, value in found.items() if not _is_nothing(value)}
    if graph:
        return Settings(
            {key: value for key, value in values.items() if value is not _ANY and key != "model_type"}, "graph"
        )
    tied = next((one[_TIED] for one in (config, own) if isinstance(one.get(_TIED), bool)), None)
    return Settings(values, "config", tied)


def settings_of_gguf(metadata: Mapping[str, Any]) -> Settings:
    """The same of a GGUF file's metadata, as far as its keys have counterparts; their names where there are several.

    Args:
        metadata: Of the file.
    """
    own = str(metadata.get("general.architecture"))
    found: Values = {}
    for key, names in _OF_GGUF.items():
        value = metadata.get(f"{own}.{key}")
        if isinstance(value, int | float) and not _is_nothing(value) and value != _USUAL.get(key):
            found[names] = value
    if metadata.get(f"{own}.attention.causal") is False and not _ENCODERS.search(own):
        found["attention.causal"] = "false"
    gate = metadata.get(f"{own}.expert_gating_func")
    if type(gate) is int and gate in _GATES:
        found["scoring_func?"] = _GATES[gate]
    if own == "deepseek2" and isinstance(normed := metadata.get(f"{own}.expert_weights_norm"), bool):
        found["norm_topk_prob" if normed else "norm_topk_prob?"] = normed
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
    return Settings(found, "gguf")


def is_ignored(key: str) -> bool:
    """Whether two configs may differ in a key."""
    return bool(_IGNORED.match(key))


def differences(child: Settings, parent: Settings) -> list[tuple[str, Any, Any]]:
    """Keys that do not agree, with both values; None for what is not there.

    Args:
        child: Of the quantized model.
        parent: Of its parent.
    """
    if child.kind == parent.kind != "graph":
        mine, theirs = child.values, parent.values
        keys = sorted(mine.keys() | theirs.keys())
        both = ((key, mine.get(key), theirs.get(key)) for key in keys)
        # What one version of a converter writes and another does not is the same where it follows from the rest.
        return [
            one
            for one in both
            if not (_agree(*one[1:]) or (child.kind == "gguf" and one[0][-1:] == "?" and None in one))
        ]
    few, many = (parent, child) if child.kind == "config" else (child, parent)
    if "none" in (few.kind, many.kind) or many.kind == "gguf" or (few.kind == "gguf" and many.kind == "graph"):
        return []
    told = (
        _of_names(names if few.kind == "gguf" else f"{names}?", few.values[names], many.values)
        for names in sorted(few.values)
    )
    found = [one for one in told if one is not None]
    return found if few is child else [(name, theirs, mine) for name, mine, theirs in found]


def _of_names(names: str, value: Any, theirs: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """A setting that a config may call this or that; with a question mark one that it may lack."""
    known = [name.rstrip("?") for name in names.split("|")]
    if names == _OF_GGUF["rope.scaling.attn_factor"]:
        theirs = {**theirs, names: _attention_factor(theirs)}
    name = next((one for one in known if one in theirs), None)
    if name is None:
        return None if names.endswith("?") else (known[0], value, None)
    return None if _agree(value, theirs[name]) else (name, value, theirs[name])


def _attention_factor(config: Mapping[str, Any]) -> Any:
    """What scaled positions multiply attention with, which GGUF writes out and a config leaves to its kind of scaling."""
    kind, said = config.get("rope.rope_type"), config.get("rope.attention_factor")
    if said is not None or kind not in {"longrope", "su", "yarn"}:
        return said or 1.0
    first, longest = (config.get(f"rope.{key}max_position_embeddings") for key in ("original_", ""))
    if kind == "yarn" or not (isinstance(first, int) and isinstance(longest, int) and longest >= first > 1):
        return _ANY
    # Source: LongRoPE (Ding et al. 2024), as transformers' modeling_rope_utils.py has it.
    return math.sqrt(1 + math.log(longest / first) / math.log(first))


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


def _rope(merged: Values, own: Values) -> Values:
    """Rotary positions, as transformers 4 (keys of their own) and 5 (one object, perhaps by kind of layer) write them."""
    base = {new: merged[old] for old, new in _ROPE.items() if merged.get(old) is not None}
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
    return {f"rope.{_FULL}.{key}": value for key, value in full.items()} | {f"rope.{_SLIDING}.rope_theta": local}


def _respell(found: Values, merged: Values) -> None:
    """Names and values that transformers 5 writes otherwise."""
    if "num_experts" in found:
        found.setdefault("num_local_experts", found.pop("num_experts"))
    if merged.get("model_type") == "gemma" and found.get("hidden_act") == "gelu":
        found["hidden_act"] = "gelu_pytorch_tanh"


def _contradiction(own: Values) -> Values:
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
        found.setdefault("rope_theta", _DEFAULT_THETA)
    return {f"{prefix}{key}": value for key, value in found.items()}


def _window(merged: Values) -> Values:
    """The sliding window, if one is used, and the layers that have it."""
    size, layers = merged.get("sliding_window"), merged.get("num_hidden_layers")
    # Of the other model types nobody looks at the switch.
    has_switch = _SWITCH in _written().get(str(merged.get("model_type")), {})
    if not isinstance(size, int) or (has_switch and merged.get(_SWITCH) is False):
        return {"sliding_window": None, _SWITCH: None}
    kinds = merged.get("layer_types")
    if not isinstance(kinds, list) and isinstance(layers, int):
        kinds = _kinds_of_layers(merged, min(layers, 10_000))
    found: Values = {"sliding_window": size, _SWITCH: None}
    if isinstance(kinds, list) and any(kind != _SLIDING for kind in kinds):
        found["layer_types"] = kinds
    return found


def _kinds_of_layers(merged: Values, layers: int) -> list[str]:
    """Kinds of attention where they are not listed."""
    names = ("sliding_window_pattern", "_sliding_window_pattern")
    pattern = next((merged[name] for name in names if name in merged), _PATTERNS.get(str(merged.get("model_type"))))
    first = merged.get("max_window_layers")
    if merged.get(_SWITCH) is True and isinstance(first, int):
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
        try:
            return one == other or math.isclose(one, other, rel_tol=_PRECISION)
        except OverflowError:
            return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    return bool(one == other)


@lru_cache(maxsize=1)
def _written() -> dict[str, Values]:
    """Defaults of each model type; null for what transformers computes from other settings."""
    text = files("mlflow_quantgov.artifact").joinpath("config_defaults.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _computed(kind: str) -> tuple[str, ...]:
    return tuple(key for key, value in _written().get(kind, {}).items() if value is None)

"""The computation that the metadata of a GGUF file describes, in the words of configs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow_quantgov.artifact.settings.rope import DEFAULT_THETA
from mlflow_quantgov.artifact.settings.words import Settings, Values, is_nothing

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


def settings_of_gguf(metadata: Mapping[str, Any]) -> Settings:
    """The same of a GGUF file's metadata, as far as its keys have counterparts; their names where there are several.

    Args:
        metadata: Of the file.
    """
    own = str(metadata.get("general.architecture"))
    found: Values = {}
    for key, names in _OF_GGUF.items():
        value = metadata.get(f"{own}.{key}")
        if isinstance(value, int | float) and not is_nothing(value) and value != _USUAL.get(key):
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
    found.setdefault(_OF_GGUF["rope.freq_base"], DEFAULT_THETA)
    window, context = found.get("sliding_window"), metadata.get(f"{own}.context_length")
    if window is not None and isinstance(context, int) and window >= context:
        del found["sliding_window"]
    kind = metadata.get(f"{own}.rope.scaling.type")
    if isinstance(kind, str) and kind not in {"none", "longrope"}:
        found["rope.rope_type"] = kind
    return Settings(found, "gguf")

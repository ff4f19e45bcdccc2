"""Keys of a config: which do not compute, and what transformers fills in where one is left out."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files

from mlflow_quantgov.artifact.settings.words import Values

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


def is_ignored(key: str) -> bool:
    """Whether two configs may differ in a key."""
    return bool(_IGNORED.match(key))


@lru_cache(maxsize=1)
def defaults() -> dict[str, Values]:
    """Defaults by model type, then by key; null for what transformers computes from other settings."""
    text = files("mlflow_quantgov.artifact.settings").joinpath("config_defaults.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def computed(kind: str) -> tuple[str, ...]:
    """Keys that transformers computes from others, of a model type."""
    return tuple(key for key, value in defaults().get(kind, {}).items() if value is None)

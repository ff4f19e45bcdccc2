"""The architecture in words that two containers of the same model share."""

from __future__ import annotations

import re
from typing import Any

from mlflow_quantgov.artifact.quantization import Structure

# GGUF's names of a llama-like block -> Hugging Face's. Source: gguf-py's tensor_mapping.
_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK_NAME = re.compile(r"^blk\.(\d+)\.([a-z_]+)\.(weight|bias)$")


def structure_of_config(config: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> Structure:
    """Structure of a Hugging Face folder; for multimodal models, of the text part."""
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    return Structure(
        architecture=_text(text.get("model_type")),
        hidden_size=_whole(text.get("hidden_size", text.get("n_embd"))),
        num_layers=_whole(text.get("num_hidden_layers", text.get("n_layer"))),
        num_heads=_whole(text.get("num_attention_heads", text.get("n_head"))),
        num_kv_heads=_whole(text.get("num_key_value_heads", text.get("num_attention_heads"))),
        vocab_size=_whole(text.get("vocab_size")),
        tensors=tensors,
    )


def structure_of_gguf(metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Structure:
    """Structure of a GGUF file, with Hugging Face's names where the map is known."""
    architecture = _text(metadata.get("general.architecture"))
    heads = _whole(metadata.get(f"{architecture}.attention.head_count"))
    tokens = metadata.get("tokenizer.ggml.tokens")
    vocabulary = len(tokens) if isinstance(tokens, list) else _whole(metadata.get(f"{architecture}.vocab_size"))
    return Structure(
        architecture=architecture,
        hidden_size=_whole(metadata.get(f"{architecture}.embedding_length")),
        num_layers=_whole(metadata.get(f"{architecture}.block_count")),
        num_heads=heads,
        num_kv_heads=_whole(metadata.get(f"{architecture}.attention.head_count_kv")) or heads,
        vocab_size=vocabulary,
        tensors={canonical_name(name): shape for name, shape in shapes.items()},
    )


def canonical_name(name: str) -> str:
    """Hugging Face's spelling of a GGUF tensor name; the name itself where no map is known."""
    found = _BLOCK_NAME.match(name)
    if found and found[2] in _BLOCK:
        return f"model.layers.{found[1]}.{_BLOCK[found[2]]}.{found[3]}"
    stem, _, kind = name.rpartition(".")
    return f"{_OUTER[stem]}.{kind}" if stem in _OUTER else name


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None

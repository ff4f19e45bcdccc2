"""The shape of a linear layer of a decoder, by its name and the sizes in the config."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles


def matrix_shape(files: ArtifactFiles, stem: str, weights: int) -> tuple[int, int] | None:
    """[out, in] of a layer whose own tensors only tell how many weights it has; None where nothing tells.

    Args:
        files: The artifact.
        stem: Name of the module.
        weights: Number of weights that are stored; a shape with another number is not believed.
    """
    bias = files.tensors.get(f"{stem}.bias")
    if bias is not None and len(bias.shape) == 1 and bias.elements and weights % bias.elements == 0:
        return bias.elements, weights // bias.elements
    shape = _sides(files.config).get(stem.rpartition(".")[2])
    return shape if shape is not None and shape[0] * shape[1] == weights else None


def _sides(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Shapes of the linear layers that llama-like decoders share."""
    part = config.get("text_config")
    text = part if isinstance(part, dict) else config
    hidden, inner = _whole(text, "hidden_size"), _whole(text, "intermediate_size")
    heads = _whole(text, "num_attention_heads")
    width = _whole(text, "head_dim") or (hidden // heads if heads else 0)
    queries, keys = heads * width, (_whole(text, "num_key_value_heads") or heads) * width
    return {
        "q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden), "o_proj": (hidden, queries),
        "gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner),
        "lm_head": (_whole(text, "vocab_size"), hidden),
    }  # fmt: skip


def _whole(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    return value if type(value) is int and 0 < value < 2**31 else 0

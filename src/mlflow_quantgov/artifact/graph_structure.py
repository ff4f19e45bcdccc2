"""The architecture of a model that is stored as a computation graph, in Hugging Face's words as far as it keeps them.

Exporters name matrices after the module that holds them, or only their operation is named so. Where neither is, a matrix
is listed by its shape alone (`Structure.unnamed`): a parent then has to have a matrix of that very shape for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import Structure
from mlflow_quantgov.artifact.settings import settings_of_config
from mlflow_quantgov.artifact.structure import structure_of_config

# What quantizers and compilers append to the name of a matrix or of an operation.
_SUFFIX = re.compile(r"(_quantized|_quant|_compressed|(_DQ)?_Q\d+(G\d+)?|_Bnb4|_fp16|_transposed)+$")
_WEIGHT = re.compile(r"^(?:self\.|__module\.)?([\w.\-]+?)(?:\.MatMul)?\.weight$")
_UNNAMED = re.compile(r"^(onnx::|_v_|val_|Constant)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
# genai_config.json -> the names of Hugging Face's configs.
_GENAI = {
    "hidden_size": "hidden_size", "num_hidden_layers": "num_hidden_layers", "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads", "head_size": "head_dim",
}  # fmt: skip


class NamedShape(NamedTuple):
    """A weight matrix of a graph."""

    name: str | None
    """Hugging Face's name without `.weight`, where known."""
    shape: tuple[int, ...]
    kind: str
    """`matrix`, `embedding` or `other`."""


def weight_name(tensor: str, operation: str) -> str | None:
    """Hugging Face's name of a matrix, without `.weight`; None where neither name tells.

    Args:
        tensor: As stored: `model.layers.0.attn.q_proj.MatMul.weight_Q4`, `onnx::MatMul_743_quantized`.
        operation: That it is a weight of: `/model/layers.0/self_attn/q_proj/MatMul_quant`,
            `__module.model.layers.0.self_attn.q_proj/aten::linear/MatMul`.
    """
    return stored_name(tensor) or scope_name(operation)


def stored_name(tensor: str) -> str | None:
    """What the name of a stored tensor tells, without `.weight`."""
    stored = _WEIGHT.match(_SUFFIX.sub("", tensor))
    return _canonical(stored[1]) if stored and not _UNNAMED.match(tensor) else None


def scope_name(operation: str) -> str | None:
    """The module that an operation was traced in; None where its name does not tell."""
    if operation.startswith("__module."):
        return _canonical(operation.removeprefix("__module.").partition("/")[0])
    parts = operation.split("/")
    if len(parts) < 3 or parts[0]:
        return None
    return _canonical(".".join(parts[1:-1]))


def model_config(files: ArtifactFiles) -> dict[str, Any]:
    """`config.json`, or what genai_config.json says in its words.

    Raises:
        ArtifactError: Both are there and contradict each other.
    """
    found = files.extra.get("genai_config.json", {}).get("model")
    model = found if isinstance(found, dict) else {}
    decoder = model.get("decoder")
    inner = decoder if isinstance(decoder, dict) else {}
    claimed = {new: inner[old] for old, new in _GENAI.items() if old in inner}
    claimed |= {new: model[old] for old, new in (("vocab_size", "vocab_size"), ("type", "model_type")) if old in model}
    part = files.config.get("text_config")
    own = part if isinstance(part, dict) else files.config
    for key, value in claimed.items():
        if key != "model_type" and isinstance(own.get(key), int) and own[key] != value:
            raise files.contradiction("genai_config.json", f"{key} {str(value)[:20]}", f"{own[key]} by config.json")
    return {**claimed, **files.config}


def structure_of_graph(
    files: ArtifactFiles, weights: Iterable[NamedShape], heads: tuple[int, int] | None = None
) -> Structure:
    """Structure of a graph.

    Args:
        files: For the configs beside it.
        weights: Its weight matrices.
        heads: Attention heads and key-value heads that its operations state.

    Raises:
        ArtifactError: A config claims other sizes than the tensors have.
    """
    tensors: dict[str, tuple[int, ...]] = {}
    unnamed: list[tuple[int, ...]] = []
    config = dict(model_config(files))
    for one in weights:
        name = f"{one.name}.weight"
        if one.name is None or tensors.get(name, one.shape) != one.shape:
            unnamed.append(one.shape)
        else:
            tensors[name] = one.shape
    _complete(config, tensors, heads)
    found = structure_of_config(config, tensors)
    split = _split_attention(tensors, found)
    # A graph holds its own computation; what lies beside it may say little of it.
    settings = settings_of_config(config, graph=True)
    return replace(found, tensors=tensors | split, unnamed=tuple(sorted(unnamed)), settings=settings)


def _complete(config: dict[str, Any], tensors: dict[str, tuple[int, ...]], heads: tuple[int, int] | None) -> None:
    """What no config says, from tensors and operations."""
    if config:
        return
    embedding = tensors.get("model.embed_tokens.weight")
    if embedding and len(embedding) == 2:
        config |= {"vocab_size": embedding[0], "hidden_size": embedding[1]}
    layers = {int(found[1]) for name in tensors if (found := _LAYER.search(name)) and len(found[1]) < 6}
    if layers:
        config["num_hidden_layers"] = len(layers)
    if heads:
        config |= {"num_attention_heads": heads[0], "num_key_value_heads": heads[1]}


def _split_attention(tensors: dict[str, tuple[int, ...]], structure: Structure) -> dict[str, tuple[int, ...]]:
    """A matrix for queries, keys and values in one, also as the three that it was made of.

    Both spellings are listed, for some parents store one and some three.
    """
    found: dict[str, tuple[int, ...]] = {}
    heads, shared = structure.num_heads, structure.num_kv_heads
    for name, shape in tensors.items():
        stem = name.removesuffix("qkv_proj.weight")
        if stem == name or len(shape) != 2 or not heads or not shared or heads < 1 or shared < 1:
            continue
        width, rest = divmod(shape[0], heads + 2 * shared)
        if rest == 0:
            found[f"{stem}q_proj.weight"] = (heads * width, shape[1])
            found[f"{stem}k_proj.weight"] = found[f"{stem}v_proj.weight"] = (shared * width, shape[1])
    return found


def _canonical(name: str) -> str:
    # onnxruntime-genai's builder shortens one name and counts the last norm as a layer of its own.
    name = re.sub(r"\.attn\.(?=(q|k|v|qkv|o)_proj|(q|k)_norm)", ".self_attn.", name)
    return "model.norm" if re.match(r"^model\.layers\.\d+\.final_norm", name) else name

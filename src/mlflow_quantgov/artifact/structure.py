"""The architecture in words that two containers of the same model share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mlflow_quantgov.artifact.quantization import Structure
from mlflow_quantgov.artifact.settings import settings_of_config, settings_of_gguf, text_part
from mlflow_quantgov.artifact.tensors import GgufArray, Tensor
from mlflow_quantgov.errors import ArtifactError

# GGUF's names of a llama-like block -> Hugging Face's. Source: gguf-py's tensor_mapping.
_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.gate",
}
# Blocks that norm before and after the feed-forward part name their norms otherwise.
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_BLOCK_OF: dict[str, dict[str, str]] = {
    "gemma2": _SANDWICH,
    "gemma3": _SANDWICH,
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    "mixtral": {"ffn_gate_inp": "block_sparse_moe.gate"},
}
_EXPERTS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}
_MIXTRAL_EXPERTS = {"ffn_gate_exps": "w1", "ffn_up_exps": "w3", "ffn_down_exps": "w2"}
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK_NAME = re.compile(r"^blk\.(\d+)\.([a-z_]+)\.(weight|bias)$")
_GPT2 = {
    "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
    "attn_norm": "ln_1", "ffn_norm": "ln_2", "token_embd": "transformer.wte", "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f", "output": "lm_head",
}  # fmt: skip
UNNAMED_ARCHITECTURES = frozenset({
    "bert", "bloom", "chatglm", "codeshell", "dbrx", "exaone", "falcon", "gptj", "gptneox", "internlm2", "jais", "jina-bert-v2",
    "modern-bert", "mpt", "nomic-bert", "openelm", "phi2", "qwen", "refact", "starcoder", "starcoder2", "t5", "t5encoder",
})  # fmt: skip
"""Architectures whose Hugging Face names are not those of a llama-like decoder, and not mapped: names stay GGUF's."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte)\.weight$")
# GGUF's architecture -> model_type of Hugging Face configs, where they differ.
_MODEL_TYPES = {
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "gemma3": "gemma3_text",
    "command-r": "cohere",
    "gptneox": "gpt_neox",
    "deepseek2": "deepseek_v2",
}
# Models whose blocks are the same: GGUF writes all of them as `llama`.
_FAMILIES = {"mistral": "llama", "mixtral": "llama", "gemma3": "gemma3_text", "deepseek_v3": "deepseek_v2"}


def architecture_family(name: str | None) -> str | None:
    """One name for architectures that a container may write under another's (GGUF calls Mistral `llama`)."""
    return _FAMILIES.get(name, name) if name else None


def structure_of_config(config: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> Structure:
    """Structure of a Hugging Face folder; for multimodal models, of the text part.

    Raises:
        ArtifactError: The config claims another vocabulary, width or number of layers than the tensors have.
    """
    text = text_part(config)
    heads = _whole(text.get("num_attention_heads", text.get("n_head")))
    structure = Structure(
        architecture=_text(text.get("model_type")),
        hidden_size=_whole(text.get("hidden_size", text.get("n_embd"))),
        num_layers=_whole(text.get("num_hidden_layers", text.get("n_layer"))),
        num_heads=heads,
        num_kv_heads=_whole(text.get("num_key_value_heads")) or heads,
        vocab_size=_whole(text.get("vocab_size")),
        tensors=tensors,
        settings=settings_of_config(config),
    )
    _check(structure, "config.json")
    _check_widths(structure, "config.json", text.get("head_dim"), text.get("intermediate_size"))
    return structure


def structure_of_gguf(metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Structure:
    """Structure of a GGUF file, with Hugging Face's names where the map is known.

    Raises:
        ArtifactError: The metadata claims another width or number of layers than the tensors have.
    """
    own = _text(metadata.get("general.architecture"))
    heads = _whole(metadata.get(f"{own}.attention.head_count"))
    experts = _whole(metadata.get(f"{own}.expert_count"))
    names = "mixtral" if own == "llama" and experts else own
    tensors: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        named = _canonical(name, shape, names)
        for twice in sorted(named.keys() & tensors.keys()):
            raise stored_twice(
                next(other for other in shapes if twice in _canonical(other, shapes[other], names)), name
            )
        tensors |= named
    unnamed = (
        tuple(sorted(shape for shape in tensors.values() if len(shape) > 1)) if own in UNNAMED_ARCHITECTURES else ()
    )
    tokens = metadata.get("tokenizer.ggml.tokens")
    listed = tokens.length if isinstance(tokens, GgufArray) else len(tokens) if isinstance(tokens, list) else None
    embedding = shapes.get("token_embd.weight")
    structure = Structure(
        architecture=_MODEL_TYPES.get(own, own) if own else None,
        hidden_size=_whole(metadata.get(f"{own}.embedding_length")),
        num_layers=_whole(metadata.get(f"{own}.block_count")),
        num_heads=heads,
        num_kv_heads=_whole(metadata.get(f"{own}.attention.head_count_kv")) or heads,
        vocab_size=embedding[0] if embedding and len(embedding) == 2 else listed,
        tensors={} if unnamed else tensors,
        unnamed=unnamed,
        settings=settings_of_gguf(metadata),
    )
    _check(structure, "the GGUF metadata")
    width, inner = metadata.get(f"{own}.attention.key_length"), metadata.get(f"{own}.feed_forward_length")
    _check_widths(structure, "the GGUF metadata", width, inner)
    return structure


def canonical_name(name: str, architecture: str | None = None) -> str:
    """Hugging Face's spelling of a GGUF tensor name; the name itself where no map is known.

    Args:
        name: `blk.0.attn_q.weight`, say.
        architecture: GGUF's `general.architecture`; some name their norms otherwise.
    """
    found = _BLOCK_NAME.match(name)
    if architecture in UNNAMED_ARCHITECTURES:
        return name
    if architecture == "gpt2":
        part = _GPT2.get(found[2] if found else name.rpartition(".")[0])
        return name if part is None else f"transformer.h.{found[1]}.{part}.{found[3]}" if found else \
            f"{part}.{name.rpartition('.')[2]}"  # fmt: skip
    if found:
        part = _BLOCK_OF.get(architecture or "", {}).get(found[2]) or _BLOCK.get(found[2])
        return f"model.layers.{found[1]}.{part}.{found[3]}" if part else name
    stem, _, kind = name.rpartition(".")
    return f"{_OUTER[stem]}.{kind}" if stem in _OUTER else name


def _canonical(name: str, shape: tuple[int, ...], architecture: str | None) -> dict[str, tuple[int, ...]]:
    """Canonical name and shape; a stack of experts is given as its experts, the way Hugging Face files hold them."""
    found = _BLOCK_NAME.match(name)
    if not found or found[2] not in _EXPERTS or len(shape) != 3 or shape[0] > 1024:
        return {canonical_name(name, architecture): shape}
    if architecture == "mixtral":
        stem, part = "block_sparse_moe.experts", _MIXTRAL_EXPERTS[found[2]]
    else:
        stem, part = "mlp.experts", _EXPERTS[found[2]]
    return {f"model.layers.{found[1]}.{stem}.{one}.{part}.{found[3]}": shape[1:] for one in range(shape[0])}


def canonical_parts(tensor: Tensor, architecture: str | None) -> Iterator[tuple[str, Tensor]]:
    """A GGUF tensor under its canonical name; a stack of experts as its experts, each a piece of the stored bytes."""
    named = _canonical(tensor.name, tensor.shape, architecture)
    size = tensor.size // len(named)
    for place, (name, shape) in enumerate(named.items()):
        yield name, replace(tensor, shape=shape, offset=tensor.offset + place * size, size=size)


def _check(structure: Structure, claimant: str) -> None:
    """Refuse claims that the tensors' own shapes contradict; what is missing would be made up when loaded."""
    embedding = [shape for name, shape in structure.tensors.items() if _EMBEDDING.search(name) and len(shape) == 2]
    layers = {int(found[1]) for name in structure.tensors if (found := _LAYER.search(name))}
    facts = []
    if len(embedding) == 1:
        facts = [("vocab_size", structure.vocab_size, embedding[0][0])]
        # Some models factorise their embedding: then its width is no multiple of the hidden size.
        if structure.hidden_size and embedding[0][1] > structure.hidden_size:
            facts.append(("hidden_size", structure.hidden_size, embedding[0][1]))
    if layers and structure.num_layers is not None and len(layers) < structure.num_layers:
        facts.append(("number of layers", structure.num_layers, len(layers)))
    for label, claimed, found_value in facts:
        if claimed is not None and claimed != found_value:
            raise _denied(claimant, label, claimed, found_value)


def _check_widths(structure: Structure, claimant: str, head: Any, inner: Any) -> None:
    """Refuse a width of heads or of the feed-forward part that no layer has; layers may differ."""
    heads = structure.num_kv_heads
    for label, claimed, part, over in (
        (f"head_dim (of {heads} key-value heads)", _whole(head), "self_attn.k_proj", heads),
        ("intermediate_size", _whole(inner), "mlp.up_proj", 1),
    ):
        found = {
            shape[0] / over
            for name, shape in structure.tensors.items()
            if over and len(shape) == 2 and name.endswith(f".{part}.weight") and _LAYER.search(name)
        }
        if claimed and found and claimed not in found:
            raise _denied(claimant, label, claimed, min(found))


def _denied(claimant: str, label: str, claimed: int, found: float) -> ArtifactError:
    return ArtifactError(
        f"In {claimant} the {label} is {claimed:,}, by the tensors it is {found:,g}.",
        why="A loader would fail, or fill in what is missing with random numbers.",
        fix="copy or download the folder again, then quantgov inspect PATH",
    )


def stored_twice(first: str, second: str) -> ArtifactError:
    """The error for two weights of one module: which of them a loader takes hangs on its config and version.

    Args:
        first: Name of a stored tensor.
        second: Name of another that holds the same weight.
    """
    return ArtifactError(
        f"One weight is stored twice, as {first[:200]} and as {second[:200]}.",
        why="Which of the two is loaded depends on the loader and its config, so neither counts.",
        fix="remove one of the two tensors, or quantize it again",
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None

"""Names and shapes that two containers of the same model share."""

from __future__ import annotations

import pytest

from mlflow_quantgov.artifact.structure import architecture_family, canonical_name, structure_of_gguf
from mlflow_quantgov.errors import ArtifactError


@pytest.mark.parametrize(
    ("own", "architecture", "canonical"),
    [
        ("token_embd.weight", "llama", "model.embed_tokens.weight"),
        ("output_norm.weight", "llama", "model.norm.weight"),
        ("output.weight", "llama", "lm_head.weight"),
        ("blk.12.attn_q.weight", "llama", "model.layers.12.self_attn.q_proj.weight"),
        ("blk.0.attn_q.bias", "qwen2", "model.layers.0.self_attn.q_proj.bias"),
        ("blk.0.attn_q_norm.weight", "qwen3", "model.layers.0.self_attn.q_norm.weight"),
        ("blk.0.ffn_norm.weight", "llama", "model.layers.0.post_attention_layernorm.weight"),
        ("blk.0.ffn_norm.weight", "gemma2", "model.layers.0.pre_feedforward_layernorm.weight"),
        ("blk.0.post_attention_norm.weight", "gemma2", "model.layers.0.post_attention_layernorm.weight"),
        ("blk.0.ffn_up.weight", "phi3", "model.layers.0.mlp.gate_up_proj.weight"),
        ("rope_freqs.weight", "llama", "rope_freqs.weight"),
        ("blk.0.ssm_in.weight", "mamba", "blk.0.ssm_in.weight"),
    ],
)
def test_canonical_names(own: str, architecture: str, canonical: str) -> None:
    assert canonical_name(own, architecture) == canonical


def test_stacked_experts_are_given_one_by_one() -> None:
    metadata = {"general.architecture": "qwen3moe", "qwen3moe.block_count": 1, "qwen3moe.expert_count": 2}
    shapes = {"blk.0.ffn_up_exps.weight": (2, 8, 4), "token_embd.weight": (16, 4)}
    found = structure_of_gguf(metadata, shapes)
    assert found.architecture == "qwen3_moe"
    assert found.vocab_size == 16
    assert found.tensors == {
        "model.layers.0.mlp.experts.0.up_proj.weight": (8, 4),
        "model.layers.0.mlp.experts.1.up_proj.weight": (8, 4),
        "model.embed_tokens.weight": (16, 4),
    }


def test_mixtral_is_a_llama_with_experts() -> None:
    metadata = {"general.architecture": "llama", "llama.block_count": 1, "llama.expert_count": 1}
    found = structure_of_gguf(metadata, {"blk.0.ffn_gate_exps.weight": (1, 8, 4)})
    assert found.tensors == {"model.layers.0.block_sparse_moe.experts.0.w1.weight": (8, 4)}


def test_metadata_that_claims_more_layers_than_there_are() -> None:
    metadata = {"general.architecture": "llama", "llama.block_count": 3}
    with pytest.raises(ArtifactError, match="number of layers is 3, by the tensors it is 1"):
        structure_of_gguf(metadata, {"blk.0.attn_q.weight": (4, 4)})


def test_families() -> None:
    assert architecture_family("mistral") == architecture_family("llama") == "llama"
    assert architecture_family("qwen2") == "qwen2"
    assert architecture_family(None) is None

"""What decides the computation beside the weights: the same in every spelling, and told where it differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.settings import Settings, differences, settings_of_config, settings_of_gguf
from mlflow_quantgov.lineage import facts_of, prove

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "tie_word_embeddings": False,
    "intermediate_size": 96, "sliding_window": None,
}  # fmt: skip


def changed(**changes: Any) -> list[str]:
    return differences(settings_of_config(LLAMA | changes), settings_of_config(LLAMA))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rms_norm_eps": 0.9}, "norm_eps is 0.9, the parent's is 1e-05"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"rope_theta": 1e4}, "rope"),
        ({"rope_scaling": None}, "rope"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope"),
        ({"rope_parameters": {"rope_theta": 7.0, "rope_type": "linear", "factor": 2.0}}, "rope"),
        ({"sliding_window": 2}, "sliding_window is 2, the parent's is null"),
        ({"head_dim": 32}, "head_dim is 32, the parent's is 16"),
        ({"intermediate_size": 4}, "intermediate_size"),
        ({"model_type": "mistral"}, "model_type"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"num_experts_per_tok": 2}, "num_experts_per_tok"),
        ({"hidden_act": None}, "hidden_act is null"),
    ],
)
def test_what_computes_otherwise_is_told(change: dict[str, Any], words: str) -> None:
    (said,) = changed(**change)
    assert words in said


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float16", "torch_dtype": "bfloat16", "transformers_version": "5.1", "use_cache": False},
        {"rope_theta": None, "rope_scaling": None,
         "rope_parameters": {"rope_theta": 500000, "rope_type": "linear", "factor": 2}},
        {"rms_norm_eps": None, "layer_norm_eps": 0.00001},
        {"head_dim": 16, "attention_bias": False, "mlp_bias": False},
        {"sliding_window": 4096, "use_sliding_window": False},
        {"quantization_config": {"quant_method": "gptq"}, "architectures": ["Other"], "layer_types": ["full_attention"]},
    ],
)  # fmt: skip
def test_spellings_of_the_same_are_alike(change: dict[str, Any]) -> None:
    assert changed(**change) == []


def test_a_parent_that_is_tied_may_be_untied() -> None:
    tied, untied = (settings_of_config(LLAMA | {"tie_word_embeddings": one}) for one in (True, False))
    assert differences(untied, tied) == []


def test_a_gguf_file_is_held_to_what_it_says() -> None:
    said = {"general.architecture": "llama", "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
            "llama.rope.freq_base": 500000.0}  # fmt: skip
    assert differences(settings_of_gguf(said), settings_of_config(LLAMA)) == []
    assert differences(settings_of_gguf(said | {"llama.rope.freq_base": 1.0}), settings_of_config(LLAMA))
    assert differences(settings_of_gguf({"general.architecture": "llama"}), settings_of_config(LLAMA)) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from([*LLAMA, "rope_parameters", "rotary_emb_base", "text_config", "layer_norm_eps"]) | st.text(
    max_size=8
)


@given(st.dictionaries(keys, json_values, max_size=8), st.dictionaries(keys, json_values, max_size=8))
def test_any_two_configs_are_compared(one: dict[str, Any], other: dict[str, Any]) -> None:
    left, right = settings_of_config(one), settings_of_config(other)
    assert differences(left, left) == []
    assert all(isinstance(said, str) for said in differences(left, right))
    assert differences(Settings(), right) == []


def test_lineage_stops_where_the_config_computes_otherwise(artifacts: Path, tmp_path: Path) -> None:
    parent = facts_of(artifacts / "parent-bf16")
    for path in (artifacts / "gptq-w4g32").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    claimed = {"uri": "models:/p/1", "weights": parent.weights, "manifest": parent.manifest}
    assert prove(facts_of(tmp_path), parent, claimed).level == "structure"
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.9}), encoding="utf-8")
    found = prove(facts_of(tmp_path), parent, claimed)
    assert found.level == "digest" and "norm_eps is 0.9" in found.problems[0]

"""What configs say of the computation: two spellings of one model agree, and what would compute otherwise does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.settings import Settings, differences, settings_of_config, settings_of_gguf
from mlflow_quantgov.artifact.tensors import read_gguf
from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.lineage import facts_of, prove

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "architectures": ["LlamaForCausalLM"]}
GEMMA3 = {"model_type": "gemma3_text", "num_hidden_layers": 7, "sliding_window": 512}
YARN = {"factor": 4.0, "original_max_position_embeddings": 4096}


def problems(folder: Path, parent: Path) -> tuple[str, ...]:
    child, source = facts_of(folder), facts_of(parent)
    claimed = {"uri": "models:/p/1", "weights": source.weights, "manifest": source.manifest}
    found = prove(child, source, claimed)
    assert (found.level == "structure") == (not found.problems)
    return found.problems


def changed(folder: Path, name: str, change: dict[str, Any]) -> Path:
    shutil.copytree(ARTIFACTS / name, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"rms_norm_eps": 0.9},
        {"hidden_act": "relu"},
        {"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 8.0}},
        {"rope_theta": 123.0},
        {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"sliding_window": 2},
        {"attention_bias": True},
        {"tie_word_embeddings": True},
        {"final_logit_softcapping": 3.0},
        {"num_experts_per_tok": 1},
        {"model_type": "mistral", "sliding_window": 4096},
        {"architectures": ["LlamaForSequenceClassification"]},
    ],
)
def test_a_config_that_computes_otherwise_stops_at_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    found = problems(changed(tmp_path / "child", "gptq-w4g32", change), ARTIFACTS / "parent-bf16")
    assert any(("output matrix" if "tie" in key else key.split("_parameters")[0]) in found[0] for key in change)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float16", "use_cache": False, "transformers_version": "4.0.0", "pad_token_id": 7},
        {"rope_theta": 10000.0, "rope_scaling": None, "attention_dropout": 0.1},
        {"sliding_window": None, "mlp_bias": False, "_name_or_path": "x"},
    ],
)
def test_a_config_may_differ_in_what_computes_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    assert not problems(changed(tmp_path / "child", "gptq-w4g32", change), ARTIFACTS / "parent-bf16")


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (LLAMA, LLAMA | {"rms_norm_eps": 1e-6, "hidden_act": "silu", "head_dim": 16, "attention_bias": False}),
        (LLAMA | {"rope_theta": 5e5}, LLAMA | {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}),
        (
            LLAMA | {"rope_theta": 5e5, "rope_scaling": {"type": "yarn", **YARN}},
            LLAMA | {"rope_parameters": {"rope_theta": 5e5, "rope_type": "yarn", **YARN}},
        ),
        (
            {"model_type": "gpt_neox", "rotary_pct": 0.25, "rotary_emb_base": 10000},
            {"model_type": "gpt_neox", "rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
        ),
        (
            GEMMA3 | {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6},
            GEMMA3
            | {"layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"]}
            | {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
        ),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, {"model_type": "qwen2"}),
    ],
)
def test_spellings_of_two_versions_agree(older: dict[str, Any], newer: dict[str, Any]) -> None:
    assert differences(settings_of_config(newer), settings_of_config(older)) == []
    changed = {**newer, "rope_parameters": {"rope_theta": 3.0, "rope_type": "default"}}
    assert differences(settings_of_config(changed), settings_of_config(older))


@pytest.mark.slow
@pytest.mark.parametrize("place", range(27))
def test_a_config_that_transformers_saved_again_agrees(place: int) -> None:
    """Configs in the spelling of transformers 4, with the settings of well-known models."""
    transformers = pytest.importorskip("transformers")
    config = json.loads((ARTIFACTS.parent / "configs.json").read_text())[place]
    kind = type(transformers.AutoConfig.for_model(config["model_type"]))
    saved = json.loads(kind.from_dict(json.loads(json.dumps(config))).to_json_string(use_diff=True))
    assert differences(settings_of_config(saved), settings_of_config(config)) == []


@pytest.mark.parametrize("missing", ["rms_norm_eps", "rope_theta", "head_dim"])
def test_what_a_config_leaves_out_is_what_transformers_fills_in(missing: str) -> None:
    parent = LLAMA | {"rms_norm_eps": 1e-5, "rope_theta": 5e5, "head_dim": 32}
    child = {key: value for key, value in parent.items() if key != missing}
    assert [key.split(".")[-1] for key, *_ in differences(settings_of_config(child), settings_of_config(parent))] == [
        missing
    ]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rope.freq_base", 7.0, "rope_theta"),
        ("attention.layer_norm_rms_epsilon", 0.5, "rms_norm_eps"),
        ("attention.sliding_window", 2, "sliding_window"),
        ("final_logit_softcapping", 3.0, "final_logit_softcapping"),
        ("rope.scaling.type", "linear", "rope_type"),
        ("rope.scale_linear", 4.0, "rope.factor"),
        ("rope.scaling.attn_factor", 3.0, "rope.attention_factor"),
        ("rope.scaling.attn_factor", 1.0, None),
        ("attention.causal", False, "attention.causal"),
        ("attention.causal", True, None),
        ("attention.scale", 3.0, None),
    ],
)
def test_metadata_of_gguf_are_those_of_the_parents_config(key: str, value: Any, said: str | None) -> None:
    config = settings_of_config(json.loads((ARTIFACTS / "parent-bf16" / "config.json").read_text()))
    metadata = dict(read_gguf(ARTIFACTS / "tiny-Q4_0.gguf").metadata)
    assert differences(settings_of_gguf(metadata), config) == []
    found = differences(settings_of_gguf(metadata | {f"llama.{key}": value}), config)
    assert [one for one, *_ in found] == (
        [f"rope.{said}" if said in {"rope_theta", "rope_type"} else said] if said else []
    )


@pytest.mark.parametrize("change", [{"head_dim": 32}, {"intermediate_size": 4}])
def test_widths_that_the_tensors_deny(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=next(iter(change))):
        inspect(changed(tmp_path / "child", "gptq-w4g32", change))


FULL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "tie_word_embeddings": False,
    "intermediate_size": 96, "sliding_window": None,
}  # fmt: skip


def changes(**change: Any) -> list[tuple[str, Any, Any]]:
    return differences(settings_of_config(FULL | change), settings_of_config(FULL))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"rms_norm_eps": 0.9}, "rms_norm_eps"),
        ({"rms_norm_eps": "*"}, "rms_norm_eps"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"rms_norm_eps": None, "layer_norm_eps": 1e-5}, "layer_norm_eps"),  # no loader of Llama looks there
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"hidden_act": None}, "hidden_act"),
        ({"rope_theta": 1e4}, "rope.rope_theta"),
        ({"rope_scaling": None}, "rope.factor"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope.factor"),
        ({"rope_parameters": {"rope_theta": 7.0, "rope_type": "linear", "factor": 2.0}}, "rope.rope_theta"),
        ({"sliding_window": 2}, "sliding_window"),
        ({"sliding_window": 2, "use_sliding_window": False}, "sliding_window"),  # a switch of other model types
        ({"head_dim": 32}, "head_dim"),
        ({"intermediate_size": 4}, "intermediate_size"),
        ({"model_type": "mistral"}, "model_type"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"num_experts_per_tok": 2}, "num_experts_per_tok"),
        ({"text_config": FULL, "rms_norm_eps": 0.9}, "rms_norm_eps"),  # Llama has no part for texts
    ],
)
def test_what_computes_otherwise_is_told(change: dict[str, Any], key: str) -> None:
    assert key in [name for name, *_ in changes(**change)]


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float16", "torch_dtype": "bfloat16", "transformers_version": "5.1", "use_cache": False},
        {"rope_theta": None, "rope_scaling": None,
         "rope_parameters": {"rope_theta": 500000, "rope_type": "linear", "factor": 2}},
        {"head_dim": 16, "attention_bias": False, "mlp_bias": False},
        {"quantization_config": {"quant_method": "gptq"}, "layer_types": ["full_attention"]},
        {"max_position_embeddings": 8192, "model_name": "x", "transformers.js_config": {"dtype": "q4"}},
    ],
)  # fmt: skip
def test_spellings_of_the_same_are_alike(change: dict[str, Any]) -> None:
    assert changes(**change) == []


def test_the_longest_context_counts_where_positions_are_scaled_by_it() -> None:
    short, long = ({"type": "dynamic", "factor": 2.0}, {"max_position_embeddings": 4096})
    before = settings_of_config(LLAMA | {"rope_scaling": short, "max_position_embeddings": 2048})
    found = differences(settings_of_config(LLAMA | {"rope_scaling": short} | long), before)
    assert "rope.max_position_embeddings" in [key for key, *_ in found]
    said = {"rope_scaling": {**short, "original_max_position_embeddings": 2048}, "max_position_embeddings": 2048}
    assert differences(settings_of_config(LLAMA | said), before) == []


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_window_that_is_switched_off_by_default_is_none(kind: str) -> None:
    spelled = {"model_type": kind, "sliding_window": 4096, "use_sliding_window": False}
    for other in ({"sliding_window": 4096}, {}, {"sliding_window": None}):
        assert differences(settings_of_config({"model_type": kind} | other), settings_of_config(spelled)) == []


def test_a_gguf_file_is_held_to_what_it_says() -> None:
    said = {"general.architecture": "llama", "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
            "llama.rope.freq_base": 500000.0, "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}  # fmt: skip
    parent = settings_of_config(FULL)
    assert differences(settings_of_gguf(said), parent) == []
    assert differences(settings_of_gguf(said | {"llama.rope.freq_base": 1.0}), parent)
    # A parent in GGUF is compared as far as it says something, and a longer one of a newer converter with a shorter one.
    assert differences(parent, settings_of_gguf(said)) == []
    assert differences(parent, settings_of_gguf(said | {"llama.rope.freq_base": 1.0})) == [
        ("rope.rope_theta", 500000.0, 1.0)
    ]
    longer = settings_of_gguf(said | {"llama.attention.key_length": 16})
    assert differences(settings_of_gguf(said), longer) == differences(longer, settings_of_gguf(said)) == []


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("opt", {"_remove_final_layer_norm": True}),
        ("roberta", {"pad_token_id": 60}),
        ("bert", {"is_decoder": True}),
        ("esm", {"token_dropout": True}),
        ("xlstm", {"output_logit_soft_cap": 3.0}),
        ("modernbert", {"classifier_pooling": "mean"}),
        ("llama", {}),
        ("llama", {"pad_token_id": 60, "output_attentions": True, "attention_dropout": 0.5, "_name_or_path": "x"}),
    ],
)
def test_what_sounds_like_training_or_tokens_and_computes(kind: str, change: dict[str, Any]) -> None:
    parent = {"model_type": kind, "token_dropout": False, "output_logit_soft_cap": 30.0, "classifier_pooling": "cls"}
    found = differences(settings_of_config(parent | change), settings_of_config(parent))
    assert [key for key, *_ in found] == (list(change) if kind != "llama" else [])


@pytest.mark.parametrize("key", ["num_attention_heads", "num_hidden_layers"])
def test_a_size_that_a_loader_would_fill_in(tmp_path: Path, key: str) -> None:
    """GPT-2 and Bloom load with other heads and fewer layers, and say nothing."""
    folder = changed(tmp_path / "child", "gptq-w4g32", {})
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    assert any("The number of" in one and "is not set" in one for one in problems(folder, ARTIFACTS / "parent-bf16"))


def test_what_gguf_writes_of_extended_positions_follows_from_the_config() -> None:
    longrope = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0], "rope_theta": 10000.0}
    config = {"model_type": "phi3", "max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
    parent = settings_of_config(config | {"rope_parameters": longrope})
    said = {"general.architecture": "phi3", "phi3.rope.scaling.attn_factor": 1.1902380714238083,
            "phi3.rope.scaling.original_context_length": 4096}  # fmt: skip
    assert differences(settings_of_gguf(said), parent) == []
    for change in ({"phi3.rope.scaling.attn_factor": 1.5}, {"phi3.rope.scaling.original_context_length": 64}):
        assert differences(settings_of_gguf(said | change), parent)


def test_how_gguf_gates_experts_is_the_parents_word() -> None:
    config = {"model_type": "deepseek_v2", "scoring_func": "softmax", "norm_topk_prob": False}
    said = {
        "general.architecture": "deepseek2",
        "deepseek2.expert_gating_func": 1,
        "deepseek2.expert_weights_norm": False,
    }
    parent = settings_of_config(config)
    assert differences(settings_of_gguf(said), parent) == []
    for change in ({"deepseek2.expert_gating_func": 2}, {"deepseek2.expert_weights_norm": True}):
        assert differences(settings_of_gguf(said | change), parent)


def test_a_config_beside_a_graph_is_held_to_what_it_says() -> None:
    parent = settings_of_config(FULL)
    assert differences(settings_of_config({"model_type": "llama", "rms_norm_eps": 1e-5}, graph=True), parent) == []
    found = differences(settings_of_config({"model_type": "llama", "rms_norm_eps": 0.9}, graph=True), parent)
    assert found == [("rms_norm_eps", 0.9, 1e-5)]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from([*FULL, "rope_parameters", "rotary_emb_base", "text_config", "layer_norm_eps"]) | st.text(
    max_size=8
)


@given(st.dictionaries(keys, json_values, max_size=8), st.dictionaries(keys, json_values, max_size=8))
def test_any_two_configs_are_compared(one: dict[str, Any], other: dict[str, Any]) -> None:
    left, right = settings_of_config(one), settings_of_config(other)
    assert differences(left, left) == []
    assert isinstance(differences(left, right), list)
    assert isinstance(differences(settings_of_config(one, graph=True), right), list)
    assert differences(Settings(), right) == []


def test_lineage_names_what_differs(artifacts: Path, tmp_path: Path) -> None:
    folder = changed(tmp_path / "child", "gptq-w4g32", {"rms_norm_eps": 0.9})
    found = problems(folder, artifacts / "parent-bf16")
    assert "rms_norm_eps is 0.9" in found[0]


@pytest.mark.parametrize("missing", ["hidden_act", "attention_bias", "rope_parameters", "mlp_bias", "head_dim"])
def test_a_key_that_the_parent_spells_out_with_its_default_may_be_missing(tmp_path: Path, missing: str) -> None:
    """Tools of other versions write fewer keys; what transformers fills in is the same model."""
    defaults = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "head_dim": 16,
                "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}  # fmt: skip
    child = changed(tmp_path / "child", "gptq-w4g32", defaults)
    parent = changed(tmp_path / "parent", "parent-bf16", defaults)
    path = child / "config.json"
    config = json.loads(path.read_text())
    assert config.pop(missing) == defaults[missing]
    path.write_text(json.dumps(config))
    assert not problems(child, parent)

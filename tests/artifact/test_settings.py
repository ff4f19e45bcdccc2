"""What configs say of the computation: two spellings of one model agree, and what would compute otherwise does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.settings import differences, settings_of, settings_of_gguf
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
    assert differences(settings_of(newer), settings_of(older)) == []
    changed = {**newer, "rope_parameters": {"rope_theta": 3.0, "rope_type": "default"}}
    assert differences(settings_of(changed), settings_of(older))


@pytest.mark.slow
@pytest.mark.parametrize("place", range(27))
def test_a_config_that_transformers_saved_again_agrees(place: int) -> None:
    """Configs in the spelling of transformers 4, with the settings of well-known models."""
    transformers = pytest.importorskip("transformers")
    config = json.loads((ARTIFACTS.parent / "configs.json").read_text())[place]
    kind = type(transformers.AutoConfig.for_model(config["model_type"]))
    saved = json.loads(kind.from_dict(json.loads(json.dumps(config))).to_json_string(use_diff=True))
    assert differences(settings_of(saved), settings_of(config)) == []


@pytest.mark.parametrize("missing", ["rms_norm_eps", "rope_theta", "head_dim"])
def test_what_a_config_leaves_out_is_what_transformers_fills_in(missing: str) -> None:
    parent = LLAMA | {"rms_norm_eps": 1e-5, "rope_theta": 5e5, "head_dim": 32}
    child = {key: value for key, value in parent.items() if key != missing}
    assert [key.split(".")[-1] for key, *_ in differences(settings_of(child), settings_of(parent))] == [missing]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rope.freq_base", 7.0, "rope_theta"),
        ("attention.layer_norm_rms_epsilon", 0.5, "rms_norm_eps"),
        ("attention.sliding_window", 2, "sliding_window"),
        ("final_logit_softcapping", 3.0, "final_logit_softcapping"),
        ("rope.scaling.type", "linear", "rope_type"),
        ("attention.scale", 3.0, None),
    ],
)
def test_metadata_of_gguf_are_those_of_the_parents_config(key: str, value: Any, said: str | None) -> None:
    config = settings_of(json.loads((ARTIFACTS / "parent-bf16" / "config.json").read_text()))
    metadata = dict(read_gguf(ARTIFACTS / "tiny-Q4_0.gguf").metadata)
    assert differences(settings_of_gguf(metadata), config, only=True) == []
    found = differences(settings_of_gguf(metadata | {f"llama.{key}": value}), config, only=True)
    assert [one for one, *_ in found] == (
        [f"rope.{said}" if said in {"rope_theta", "rope_type"} else said] if said else []
    )


@pytest.mark.parametrize("change", [{"head_dim": 32}, {"intermediate_size": 4}])
def test_widths_that_the_tensors_deny(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=next(iter(change))):
        inspect(changed(tmp_path / "child", "gptq-w4g32", change))

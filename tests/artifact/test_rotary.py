"""Factors of rotary frequencies beside the weights of a GGUF file: the parent's configuration must give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.derivation.rotary import problem_of
from mlflow_quantgov.artifact.tensors import write_safetensors

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 131072,
    "rope_theta": 500000.0, "rope_scaling": LLAMA3,
}  # fmt: skip


def problem(folder: Path, name: str, values: Any, config: dict[str, Any], own: Any = None) -> str | None:
    """What is said of a tensor beside a parent with some configuration, and perhaps with a tensor of its own."""
    for side, one in (("child", values), ("parent", own)):
        (folder / side).mkdir()
        tensors = {"model.norm.weight": np.ones(4, np.float32)} | ({} if one is None else {name: one})
        write_safetensors(folder / side / "model.safetensors", tensors)
        (folder / side / "config.json").write_text(json.dumps(config))
    parent = folder / "parent"
    return problem_of(matrices(folder / "child")[name], matrices(parent).get(name), parent)


@pytest.mark.slow
@pytest.mark.parametrize("named", ["rope_scaling", "rope_parameters"])
def test_llama3s_factors_are_those_of_transformers(tmp_path: Path, named: str) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](
        LlamaConfig(**{**CONFIG, "rope_parameters": LLAMA3 | {"rope_theta": 500000.0}}), "cpu"
    )
    plain = 500000.0 ** -(np.arange(0, 64, 2) / 64)
    factors = (plain / scaled.numpy()).astype(np.float32)
    assert factors[0] == pytest.approx(1) and factors[-1] == pytest.approx(8)
    config = {key: one for key, one in CONFIG.items() if not key.startswith("rope")}
    config |= {"rope_parameters": LLAMA3 | {"rope_theta": 500000.0}} if named == "rope_parameters" else {}
    config |= {"rope_scaling": LLAMA3, "rope_theta": 500000.0} if named == "rope_scaling" else {}
    assert problem(tmp_path, "rope_freqs.weight", factors, config) is None


def test_other_factors_are_named(tmp_path: Path) -> None:
    said = problem(tmp_path, "rope_freqs.weight", np.full(32, 50, np.float32), CONFIG)
    assert said == "rope_freqs.weight holds other factors than the parent's configuration gives."


@pytest.mark.parametrize(
    "config", [{}, {"rope_scaling": {"rope_type": "yarn"}}, {"rope_scaling": 3}, {"rope_scaling": LLAMA3}]
)
def test_what_the_configuration_does_not_give_proves_nothing(tmp_path: Path, config: dict[str, Any]) -> None:
    said = problem(tmp_path, "rope_freqs.weight", np.ones(32, np.float32), {"model_type": "llama"} | config)
    assert said is not None and "cannot be told" in said


def test_lists_of_the_configuration_are_taken_as_they_are(tmp_path: Path) -> None:
    config = {"model_type": "phi3", "rope_scaling": {"long_factor": [1.0, 2.5], "short_factor": [1.0, 1.0]}}
    assert problem(tmp_path, "rope_factors_long.weight", np.array([1, 2.5], np.float32), config) is None


def test_a_parent_that_stores_them_speaks_for_itself(tmp_path: Path) -> None:
    values = np.array([1, 3], np.float32)
    assert problem(tmp_path, "rope_freqs.weight", values, {"model_type": "llama"}, own=values) is None

"""An adapter is described, with its base; as a model it is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.inspect import inspect, inspect_model
from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors
from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.flavor.prepare import prepare
from mlflow_quantgov.gate.facts.version_files import inspect_version


@pytest.fixture
def adapter(artifacts: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the adapter with entries of its config changed."""

    def change(**entries: Any) -> Path:
        folder = tmp_path / "adapter"
        shutil.copytree(artifacts / "adapter-lora", folder)
        config = json.loads((folder / "adapter_config.json").read_text()) | entries
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return change


def test_facts(artifacts: Path) -> None:
    found = inspect(artifacts / "adapter-lora")
    facts = found.quantization
    assert (facts.format, facts.method, facts.bits, facts.dtype) == ("adapter", "lora", None, "float32")
    assert (facts.quantized_parameters, facts.total_parameters) == (0, 4 * (64 + 64) + 4 * (64 + 32))
    assert facts.calibration_required is None
    assert facts.producer is not None
    assert facts.producer.startswith("peft ")
    assert "rank 4 on example/tiny-llama-bnb-4bit" in facts.warnings[0]
    assert "by its name the base is quantized" in facts.warnings[0]
    # A model without language-model weights would pass the gate as it is.
    assert found.is_language_model


@pytest.mark.parametrize(
    ("base", "words"),
    [("gptq-w4g32", "is quantized (gptq, 4 bit)"), ("parent-bf16", "is not quantized (full-precision)")],
)
def test_a_base_that_lies_here_is_read(artifacts: Path, adapter: Callable[..., Path], base: str, words: str) -> None:
    facts = inspect(adapter(base_model_name_or_path=str(artifacts / base))).quantization
    assert facts.warnings[-1].startswith("adapter-base: ")
    assert words in facts.warnings[-1]


def test_a_base_that_cannot_be_read_is_said_so(artifacts: Path, adapter: Callable[..., Path], tmp_path: Path) -> None:
    folder = adapter(base_model_name_or_path=str(artifacts / "adapter-lora"))
    assert "cannot be read: adapter-lora is an adapter" in inspect(folder).quantization.warnings[-1]


@pytest.mark.parametrize("base", [None, 3, "", "a\0b", "x" * 5000, {"a": 1}])
def test_odd_bases(adapter: Callable[..., Path], base: Any) -> None:
    assert inspect(adapter(base_model_name_or_path=base)).quantization.format == "adapter"


def test_as_a_model_it_is_refused(artifacts: Path) -> None:
    for refused in (lambda: inspect_model(artifacts / "adapter-lora"), lambda: prepare(artifacts / "adapter-lora", parent=None, target=None)):  # fmt: skip
        with pytest.raises(
            ArtifactError, match="is an adapter on example/tiny-llama-bnb-4bit, no model of its own"
        ) as raised:
            refused()
        assert "merge" in raised.value.fix


def test_a_config_that_names_another_rank(adapter: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match=r"adapter_config.json .*claims rank 16, its tensors have rank 4"):
        inspect(adapter(r=16))


def test_half_a_pair(adapter: Callable[..., Path]) -> None:
    path = adapter() / "adapter_model.safetensors"
    tensors = {name: np.array(one) for name, one in read_safetensors(path)}
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    write_safetensors(path, tensors)
    with pytest.raises(ArtifactError, match="no sound LoRA layer"):
        inspect(path.parent)


def test_a_pickled_adapter_is_not_opened(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="pickle"):
        inspect(folder)


def test_a_model_beside_an_adapters_config(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shutil.copytree(artifacts / "parent-bf16", folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ArtifactError, match="weights that are no adapter"):
        inspect(folder)


def test_the_gate_takes_it_for_no_model_and_for_nothing_harmless(artifacts: Path) -> None:
    found, problem = inspect_version(artifacts / "adapter-lora", artifacts / "adapter-lora")
    # (None, None) would mean a model of another kind, which is open by default.
    assert found is None
    assert problem is not None
    assert "no model of its own" in problem

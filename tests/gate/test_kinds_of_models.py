"""What the gate takes a model's files for, before any rule is asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlflow_quantgov.gate.facts.version_files import inspect_version

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"


@pytest.mark.parametrize("name", ["onnx-sklearn", "onnx-cnn"])
def test_a_graph_without_language_is_of_another_kind(name: str) -> None:
    assert inspect_version(ARTIFACTS / name, ARTIFACTS / name) == (None, None)


@pytest.mark.parametrize("name", ["onnx-genai-int4", "onnx-f16", "openvino-nf4", "onnx-cnn-int8"])
def test_language_models_and_whatever_is_quantized_are_judged(name: str) -> None:
    found, problem = inspect_version(ARTIFACTS / name, ARTIFACTS / name)
    assert found is not None and problem is None


def test_weights_under_another_name_beside_a_graph_are_not_overlooked(tmp_path: Path) -> None:
    shutil.copy(ARTIFACTS / "onnx-sklearn" / "model.onnx", tmp_path)
    shutil.copy(ARTIFACTS / "tiny-Q4_0.gguf", tmp_path / "labels.txt")
    found, problem = inspect_version(tmp_path, tmp_path)
    assert found is None and problem is not None and "labels.txt" in problem


@pytest.mark.parametrize("source", ["onnx-sklearn/model.onnx", "openvino-nf4/openvino_model.xml"])
def test_a_graph_that_cannot_be_read_is_unknown(tmp_path: Path, source: str) -> None:
    data = (ARTIFACTS / source).read_bytes()
    (tmp_path / Path(source).name).write_bytes(data[: len(data) // 2])
    (tmp_path / "openvino_model.bin").write_bytes(b"")
    found, problem = inspect_version(tmp_path, tmp_path)
    assert found is None and problem


def test_a_graph_that_is_read_in_an_unknown_way_is_unknown(tmp_path: Path) -> None:
    data = (ARTIFACTS / "onnx-int8-qoperator" / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data.replace(b"QLinearMatMul", b"QLinearMatMux"))
    found, problem = inspect_version(tmp_path, tmp_path)
    assert found is None and problem is not None and "QLinearMatMux" in problem

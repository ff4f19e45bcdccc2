"""What producers leave in an artifact about the data that they calibrated on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from mlflow_quantgov.artifact.calibration_notes import LONGEST, MOST
from mlflow_quantgov.artifact.describe import rows
from mlflow_quantgov.artifact.inspect import inspect, inspect_model
from mlflow_quantgov.artifact.quantization import Quantization

ARTIFACTS = Path(__file__).parent.parent / "data" / "artifacts"


def copy_of(name: str, folder: Path, **claims: Any) -> Path:
    """An artifact whose quantization config says more."""
    shutil.copytree(ARTIFACTS / name, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] |= claims
    path.write_text(json.dumps(config), encoding="utf-8")
    for side in ("quantize_config.json", "quantization_config.json"):
        if (folder / side).exists():
            (folder / side).unlink()
    return folder


@pytest.mark.parametrize(
    ("claims", "noted"),
    [
        ({"dataset": "c4"}, ("c4",)),
        ({"dataset": "NeelNanda/pile-10k"}, ("NeelNanda/pile-10k",)),
        ({"dataset": ["wikitext2", "calib.jsonl"]}, ("wikitext2", "calib.jsonl")),
        ({"dataset": {"name": "gsm8k", "split": "train"}}, ("gsm8k",)),
        ({"meta": {"calib_data": "pileval"}}, ("pileval",)),
        ({"dataset": None}, ()),
        ({"dataset": ["a text of a customer " * 20]}, ()),
        ({"dataset": "two\nlines"}, ()),
        ({"dataset": 7}, ()),
        ({"dataset": [f"set{number}" for number in range(40)]}, tuple(f"set{number}" for number in range(MOST))),
    ],
)
def test_names_in_a_quantization_config(tmp_path: Path, claims: dict[str, Any], noted: tuple[str, ...]) -> None:
    found = inspect_model(copy_of("gptq-w4g32", tmp_path / "m", **claims)).quantization
    assert found.calibration_data == noted
    assert all(len(name) <= LONGEST for name in found.calibration_data)
    assert Quantization.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert (rows(found).get("calibrated on") or "") == ", ".join(noted)


def test_names_in_a_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("quantize.imatrix.file", "/models_out/imatrix.dat")
    writer.add_string("quantize.imatrix.dataset", "/training_dir/calibration_datav3.txt")
    writer.add_int32("quantize.imatrix.entries_count", 128)
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert inspect(path).quantization.calibration_data == (
        "/training_dir/calibration_datav3.txt",
        "/models_out/imatrix.dat",
    )


def test_names_in_files_beside_the_weights(tmp_path: Path) -> None:
    folder = copy_of("ct-w4g32", tmp_path / "m")
    (folder / "recipe.yaml").write_text("stage:\n  dataset: ultrachat_200k\n", encoding="utf-8")
    assert inspect(folder).quantization.calibration_data == ("ultrachat_200k",)
    (folder / "recipe.yaml").write_text("a: [", encoding="utf-8")
    (folder / "ort_config.json").write_text("{", encoding="utf-8")
    assert inspect(folder).quantization.calibration_data == ()
    graph = tmp_path / "g"
    shutil.copytree(ARTIFACTS / "openvino-int4-asym", graph)
    (graph / "openvino_config.json").write_text(
        json.dumps({"quantization_config": {"bits": 4, "quantization_configs": {"lm": {"dataset": "contextual"}}}}),
        encoding="utf-8",
    )
    assert inspect(graph).quantization.calibration_data == ("contextual",)


def test_most_artifacts_say_nothing() -> None:
    for name in ("gptq-w4g32", "awq-w4g32", "tiny-Q4_0.gguf", "onnx-int4-qdq", "bnb-nf4-double", "optimum-int8"):
        assert inspect(ARTIFACTS / name).quantization.calibration_data == ()

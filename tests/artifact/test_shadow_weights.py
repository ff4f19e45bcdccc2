"""What lies beside the compared weights: a second weight of one module, tensors that nobody compared, lying configs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.structure import structure_of_gguf
from mlflow_quantgov.artifact.tensors import open_safetensors
from mlflow_quantgov.errors import ArtifactError

Stored = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Type, shape and bytes by name."""
MODULE = "model.layers.0.self_attn.q_proj"
PACKED = {
    "gptq-w4g32": "qweight", "awq-w4g32": "qweight", "ct-w4g32": "weight_packed", "hqq-w4g32": "W_q",
    "torchao-int8wo": "_weight_qdata", "quanto-int4": "weight._data._data",
}  # fmt: skip


@pytest.fixture
def changed(artifacts: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies an artifact with other tensors beside its own, and another config."""

    def copy(name: str, beside: Stored | None = None, config: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / name
        shutil.copytree(artifacts / name, folder)
        opened = open_safetensors(folder / "model.safetensors")
        stored = {one.name: (one.dtype, one.shape, one.raw().tobytes()) for one in opened.tensors.values()}
        write(opened.path, stored | (beside or {}), opened.metadata)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
        return folder

    return copy


def write(path: Path, stored: Stored, metadata: dict[str, str]) -> None:
    """A safetensors file with tensors of any type."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, (dtype, shape, data) in stored.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in stored.values()))


def floats(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return "F16", shape, bytes(2 * prod(shape))


def quantization(artifacts: Path, name: str) -> dict[str, Any]:
    found = json.loads((artifacts / name / "config.json").read_text())["quantization_config"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", PACKED)
def test_a_module_is_not_stored_twice(artifacts: Path, changed: Callable[..., Path], name: str) -> None:
    """A loader that the config tells to leave the module alone takes the floats."""
    shape = next(one.shape for one in inspect(artifacts / name).quantization.layers if one.name == MODULE)
    folder = changed(name, {f"{MODULE}.weight": floats(*shape)})
    with pytest.raises(ArtifactError, match="stored twice") as error:
        inspect(folder)
    assert f"{MODULE}.weight" in error.value.what and PACKED[name] in error.value.what


def test_a_gguf_weight_does_not_stand_under_two_names() -> None:
    shapes = dict.fromkeys(("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"), (8, 8))
    with pytest.raises(ArtifactError, match=r"blk\.0\.attn_q\.weight and as model\.layers\.0"):
        structure_of_gguf({"general.architecture": "llama"}, shapes)

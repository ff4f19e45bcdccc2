"""Small artifacts made by real tools, and a writer of broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.tensors import write_safetensors

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"


@pytest.fixture
def artifacts() -> Path:
    """Folder of the artifacts that `make.py` beside them made."""
    return ARTIFACTS


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with the given tensors and config."""

    def write(tensors: dict[str, np.ndarray], config: dict[str, Any] | None = None, name: str = "model") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_safetensors(folder / "model.safetensors", tensors)
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder

    return write

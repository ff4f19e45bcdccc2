"""Small artifacts made by real tools, and a writer of broken ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mlflow_quantgov.artifact.tensors import write_safetensors

# The tests beside this file import `bounded`.
sys.path.insert(0, str(Path(__file__).parent))
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


class OnnxWriter:
    """Writes ONNX's messages field by field, wrong ones too."""

    TYPES: ClassVar = {
        "float32": 1,
        "uint8": 2,
        "int8": 3,
        "int16": 5,
        "int32": 6,
        "int64": 7,
        "bool": 9,
        "float16": 10,
    }

    @staticmethod
    def varint(number: int) -> bytes:
        number &= (1 << 64) - 1
        found = bytearray()
        while number > 127:
            found.append(number & 127 | 128)
            number >>= 7
        return bytes([*found, number])

    def field(self, number: int, value: int | str | bytes) -> bytes:
        if isinstance(value, int):
            return self.varint(number << 3) + self.varint(value)
        data = value.encode() if isinstance(value, str) else value
        return self.varint(number << 3 | 2) + self.varint(len(data)) + data

    def tensor(
        self, name: str, array: np.ndarray | None = None, *, kind: int | None = None, shape: Any = None, **beside: str
    ) -> bytes:
        shape = array.shape if shape is None and array is not None else shape or ()
        if kind is None:
            kind = self.TYPES[array.dtype.name] if array is not None else 1
        found = b"".join(self.field(1, int(side)) for side in shape) + self.field(2, kind) + self.field(8, name)
        if array is not None:
            return found + self.field(9, array.tobytes())
        entries = (self.field(13, self.field(1, key) + self.field(2, value)) for key, value in beside.items())
        return found + b"".join(entries) + (self.field(14, 1) if beside else b"")

    def attribute(self, name: str, value: int | list[int] | tuple[int, bytes]) -> bytes:
        """A number, numbers, or a field's number and a message: 5 for a tensor, 6 for a graph."""
        if isinstance(value, int):
            return self.field(1, name) + self.field(3, value)
        if isinstance(value, list):
            return self.field(1, name) + b"".join(self.field(8, one) for one in value)
        return self.field(1, name) + self.field(*value)

    def node(
        self, op: str, inputs: list[str], outputs: list[str], name: str = "", domain: str = "", **attributes: Any
    ) -> bytes:
        found = b"".join(self.field(1, one) for one in inputs) + b"".join(self.field(2, one) for one in outputs)
        found += self.field(3, name) + self.field(4, op) + (self.field(7, domain) if domain else b"")
        return found + b"".join(self.field(5, self.attribute(key, value)) for key, value in attributes.items())

    def graph(self, nodes: list[bytes], tensors: list[bytes] = (), inputs: list[str] = ("x",)) -> bytes:  # type: ignore[assignment]
        found = b"".join(self.field(1, one) for one in nodes) + b"".join(self.field(5, one) for one in tensors)
        return found + b"".join(self.field(11, self.field(1, one)) for one in inputs)

    def model(self, nodes: list[bytes], tensors: list[bytes] = (), inputs: list[str] = ("x",)) -> bytes:  # type: ignore[assignment]
        return self.field(1, 10) + self.field(2, "by hand") + self.field(7, self.graph(nodes, tensors, inputs))


@pytest.fixture(scope="session")
def onnx() -> OnnxWriter:
    """A writer of ONNX files."""
    return OnnxWriter()

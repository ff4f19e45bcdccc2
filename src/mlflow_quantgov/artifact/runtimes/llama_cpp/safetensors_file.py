"""Read and write safetensors with numpy alone (bfloat16 included), with bounds checked before anything is allocated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.errors import ArtifactError

_MAX_HEADER = 100 * 2**20
_WIDTH = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True)
class Stored:
    """One tensor as stored."""

    dtype: str
    """`BF16`, `F16` or `F32`."""
    shape: tuple[int, ...]
    bits: NDArray[Any]
    """Its bits as uint16 (BF16, F16) or uint32 (F32), of `shape`; a view of the mapped file."""

    def widened(self) -> NDArray[np.float32]:
        """Float32 values: exact, because float32 holds every bfloat16 and every float16."""
        if self.dtype == "BF16":
            return (self.bits.astype(np.uint32) << 16).view(np.float32)
        return self.bits.view(np.float16 if self.dtype == "F16" else np.float32).astype(np.float32)

    def holds(self, dtype: str) -> bool:
        """Whether every value is one of another type (`BF16`, `F16`, `F32`) too, so that storing it there loses nothing."""
        if dtype in {self.dtype, "F32"}:
            return True
        values = self.widened()
        if dtype == "BF16":
            return not bool((values.view(np.uint32) & 0xFFFF).any())
        with np.errstate(over="ignore"):
            back = values.astype(np.float16).astype(np.float32)
        return bool(np.array_equal(back.view(np.uint32), values.view(np.uint32)))

    def as_16_bit(self, dtype: str) -> NDArray[np.float16]:
        """Its bits in `BF16` or `F16`, which must hold it; numpy has no bfloat16, so both are given as float16."""
        if dtype == self.dtype:
            return self.bits.view(np.float16)
        if dtype == "BF16":
            return (self.widened().view(np.uint32) >> 16).astype(np.uint16).view(np.float16)
        return self.widened().astype(np.float16)


def read_folder(folder: Path) -> dict[str, Stored]:
    """Map every tensor of every `*.safetensors` in a folder.

    Raises:
        ArtifactError: A header is malformed, a tensor leaves its file or has another type, or two share a name.
    """
    found: dict[str, Stored] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in _read_file(path).items():
            if name in found:
                raise _broken(path, f"tensor {name} is stored twice")
            found[name] = tensor
    if not found:
        raise ArtifactError(
            f"{folder.name} holds no safetensors.",
            why="Only safetensors weights are read; pickles are never loaded.",
            fix="save the model with save_pretrained(..., safe_serialization=True)",
        )
    return found


def _read_file(path: Path) -> dict[str, Stored]:
    """Map the tensors of one file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER, size - 8):
            raise _broken(path, "its header is longer than the file")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise _broken(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not an object")
    data = np.memmap(path, dtype=np.uint8, mode="r")[8 + length :] if size > 8 + length else np.empty(0, np.uint8)
    return {name: _tensor(path, name, entry, data) for name, entry in header.items() if name != "__metadata__"}


def _tensor(path: Path, name: str, entry: Any, data: NDArray[np.uint8]) -> Stored:
    """One tensor of a header, checked against the file."""
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, f"the header entry of {name} is malformed") from error
    if dtype not in _WIDTH:
        raise _broken(path, f"tensor {name} is stored as {dtype}, which is not full precision")
    if any(size < 0 for size in shape) or not 0 <= start <= end <= len(data):
        raise _broken(path, f"tensor {name} lies outside the file")
    if end - start != prod(shape) * _WIDTH[dtype]:
        raise _broken(path, f"tensor {name} has {end - start} bytes, its shape needs {prod(shape) * _WIDTH[dtype]}")
    kind = np.uint32 if dtype == "F32" else np.uint16
    return Stored(dtype, shape, np.frombuffer(data[start:end], dtype=kind).reshape(shape))


def write_file(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Write one safetensors file, tensors in the given order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.bits.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor.bits).data)


def _broken(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{path.name} cannot be read: {problem}.",
        why="Weights that cannot be read cannot be converted or measured.",
        fix=f"quantgov inspect {path.parent}",
    )

"""Safetensors, read from the header alone. Source: the format's description in huggingface/safetensors' README."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.tensors.types import Tensor
from mlflow_quantgov.errors import ArtifactError

MAX_HEADER_BYTES = 100_000_000
MAX_NAME = 4096

BYTES_PER_ELEMENT: dict[str, float] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
    "F4": 0.5, "F6_E2M3": 0.75, "F6_E3M2": 0.75,
}  # fmt: skip
FLOATS = {"F64", "F32", "F16", "BF16"}
_NUMPY: dict[str, str] = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "BF16": "<u2",
}  # fmt: skip
_NAMES = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "float16": "F16", "int32": "I32",
          "float32": "F32", "int64": "I64", "float64": "F64"}  # fmt: skip


@dataclass(frozen=True)
class SafetensorsFile:
    """Header of one file."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def open_safetensors(path: Path) -> SafetensorsFile:
    """Read and check the header of a file; no payload is read.

    Raises:
        ArtifactError: Truncated, too large a header, duplicate names, or offsets that overlap or leave the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise _bad(path, f"its header claims {length:,} bytes and the file has {size:,}")
            text = file.read(length)
    except OSError as error:
        raise _bad(path, str(error)) from error
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"its header is not JSON ({str(error)[:100]})") from error
    if not isinstance(header, dict):
        raise _bad(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _bad(path, "its metadata is not a JSON object")
    tensors = {name: _tensor(path, name, entry, 8 + length, size) for name, entry in header.items()}
    _no_overlap(path, tensors)
    return SafetensorsFile(path, tensors, {str(key): str(value) for key, value in metadata.items()})


def read_safetensors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every tensor of a file with its values; bfloat16 is widened to float32, exactly."""
    for name, tensor in open_safetensors(path).tensors.items():
        yield name, values(tensor)


def values(tensor: Tensor) -> NDArray[Any]:
    """Values of a tensor as numpy; bfloat16 is widened to float32, exactly.

    Raises:
        ArtifactError: The storage type has no numpy equivalent.
    """
    if tensor.dtype not in _NUMPY:
        raise _bad(tensor.file, f"the tensor {tensor.name} of type {tensor.dtype} cannot be read as numbers")
    array = tensor.raw().view(_NUMPY[tensor.dtype]).reshape(tensor.shape)
    if tensor.dtype == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array


def write_safetensors(
    path: Path, tensors: dict[str, NDArray[Any]], *, bf16: frozenset[str] = frozenset(), metadata: dict[str, str] | None = None
) -> None:
    """Write a file without torch.

    Args:
        path: File to write.
        tensors: Name to array.
        bf16: Names whose arrays are uint16 bit patterns of bfloat16.
        metadata: Texts for the header.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for name in sorted(tensors):
        array = tensors[name]
        dtype = "BF16" if name in bf16 else _NAMES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> Tensor:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _bad(path, f"the tensor {name[:100]!r} has no dtype, shape and offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES_PER_ELEMENT:
        raise _bad(path, f"the tensor {name[:100]!r} has the unknown type {str(dtype)[:30]!r}")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if len(name) > MAX_NAME or not all(type(one) is int and one >= 0 for one in numbers) or len(offsets) != 2:
        raise _bad(path, f"the tensor {name[:100]!r} has an impossible shape or offset")
    begin, end = offsets
    elements = 1
    for side in shape:
        elements *= side
        if elements > 2**62:
            raise _bad(path, f"the tensor {name[:100]!r} claims more elements than any file can hold")
    if end < begin or start + end > size:
        raise _bad(path, f"the tensor {name[:100]!r} ends at byte {start + end:,} and the file has {size:,}")
    if elements * BYTES_PER_ELEMENT[dtype] != end - begin:
        raise _bad(path, f"the tensor {name[:100]!r} has {end - begin:,} bytes, its shape needs another number")
    return Tensor(name, dtype, tuple(shape), path, start + begin, end - begin)


def _no_overlap(path: Path, tensors: dict[str, Tensor]) -> None:
    end = 0
    for tensor in sorted(tensors.values(), key=lambda one: (one.offset, one.size)):
        if tensor.size and tensor.offset < end:
            raise _bad(path, f"the tensor {tensor.name[:100]!r} overlaps another")
        end = max(end, tensor.offset + tensor.size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _bad(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{os.path.basename(path)} is not a sound safetensors file: {problem}.",
        why="Facts about a model are read from its bytes; from these they cannot be.",
        fix="copy or download the file again, then quantgov inspect PATH",
    )

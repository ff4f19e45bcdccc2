"""Safetensors, read from the header alone. Source: the format's description in huggingface/safetensors' README."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.files import parse_json
from mlflow_quantgov.artifact.tensors.types import Tensor, check_layout, check_name, unsound

MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 16
MAX_SIDE = 2**48

BITS_PER_ELEMENT = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
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
        ArtifactError: Truncated, too large a header, duplicate or strange names, offsets that overlap, leave the file
            or leave bytes that belong to no tensor.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise unsound(path, f"its header claims {length:,} bytes and the file has {size:,}")
            text = file.read(length)
    except OSError as error:
        raise unsound(path, str(error)) from error
    try:
        header = parse_json(text)
    except ValueError as error:
        raise unsound(path, f"its header is not JSON ({str(error)[:100]})") from error
    if not isinstance(header, dict):
        raise unsound(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise unsound(path, "its metadata is not a JSON object")
    tensors = {name: _tensor(path, name, entry, 8 + length, size) for name, entry in header.items()}
    described = check_layout(path, tensors.values())
    if described != size - 8 - length:
        raise unsound(path, f"{size - 8 - length - described:,} of its bytes belong to no tensor")
    return SafetensorsFile(path, tensors, {str(key): str(value) for key, value in metadata.items()})


def read_safetensors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every tensor of a file with its values; bfloat16 is widened to float32, exactly."""
    for name, tensor in open_safetensors(path).tensors.items():
        yield name, tensor.values()


def write_safetensors(
    path: Path,
    tensors: dict[str, NDArray[Any]],
    *,
    bf16: frozenset[str] = frozenset(),
    metadata: dict[str, str] | None = None,
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
    check_name(path, name)
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise unsound(path, f"the tensor {name[:100]!r} has no dtype, shape and offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS_PER_ELEMENT:
        raise unsound(path, f"the tensor {name[:100]!r} has the unknown type {str(dtype)[:30]!r}")
    if not _is_numbers(shape, MAX_DIMENSIONS) or not _is_numbers(offsets, 2) or len(offsets) != 2:
        raise unsound(path, f"the tensor {name[:100]!r} has an impossible shape or offset")
    begin, end = offsets
    if end < begin or start + end > size:
        raise unsound(path, f"the tensor {name[:100]!r} ends at byte {start + end:,} and the file has {size:,}")
    if prod(shape) * BITS_PER_ELEMENT[dtype] != (end - begin) * 8:
        raise unsound(path, f"the tensor {name[:100]!r} has {end - begin:,} bytes, its shape needs another number")
    return Tensor(name, dtype, tuple(shape), path, start + begin, end - begin)


def _is_numbers(value: Any, limit: int) -> bool:
    """Whether a JSON value is a short list of whole numbers that a file can hold."""
    return (
        isinstance(value, list)
        and len(value) <= limit
        and all(type(one) is int and 0 <= one < MAX_SIDE for one in value)
    )

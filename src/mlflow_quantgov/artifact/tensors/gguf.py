"""GGUF, read from header and tensor table alone. Source: docs/gguf.md of ggml."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from mlflow_quantgov.artifact.tensors.ggml_types import TYPES
from mlflow_quantgov.artifact.tensors.types import Tensor, check_layout, check_name, unsound
from mlflow_quantgov.errors import ArtifactError

MAGIC = b"GGUF"
PROJECTOR = "clip"
"""Architecture that llama.cpp gives to whatever turns pictures or sound into a language model's input."""
MAX_TENSORS = 1_000_000
MAX_KEYS = 100_000
MAX_STRING = 16_000_000
MAX_ARRAY = 8_000_000
MAX_HEADER_BYTES = 256_000_000
MAX_DIMENSIONS = 4
KEPT_ARRAY = 4096
"""Longer arrays (a vocabulary, its merges) are checked and counted, not kept."""
_CHUNK = 1 << 20
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufArray:
    """An array that was too long to keep."""

    length: int
    """Number of values."""


@dataclass(frozen=True)
class GgufFile:
    """Metadata and tensor table of one file."""

    path: Path
    version: int
    metadata: dict[str, Any]
    """Scalars and strings whole; arrays as lists, or as `GgufArray` where they are longer than `KEPT_ARRAY`."""
    tensors: dict[str, Tensor]


class _Reader:
    """Reads numbers and strings through a growing buffer, and refuses to go past the end of the file."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.position = self.version = 0
        self._buffer, self._start = b"", 0

    def take(self, count: int) -> bytes:
        if count > self.size - self.position:
            raise unsound(self.path, f"it ends after {self.size:,} bytes, in the middle of its header")
        if self.position + count > MAX_HEADER_BYTES:
            raise unsound(self.path, f"its header is longer than {MAX_HEADER_BYTES:,} bytes")
        begin = self.position - self._start
        if begin + count > len(self._buffer):
            self._buffer = self._buffer[begin:] + self.file.read(max(count, _CHUNK))
            self._start, begin = self.position, 0
        self.position += count
        found = self._buffer[begin : begin + count]
        if len(found) != count:
            raise unsound(self.path, "it became shorter while it was read")
        return found

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def length(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def string(self) -> str:
        length = self.length()
        if length > MAX_STRING:
            raise unsound(self.path, f"a text of {length:,} bytes stands in its header")
        return self.take(length).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        raise unsound(self.path, f"a value of the unknown type {kind} stands in its header")

    def array(self) -> list[Any] | GgufArray:
        kind, count = self.number("<I"), self.length()
        if kind != _STRING and kind not in _SCALARS:
            raise unsound(self.path, f"an array of the unknown type {kind} stands in its header")
        width = struct.calcsize(_SCALARS[kind]) if kind in _SCALARS else 8
        if count > MAX_ARRAY or count * width > self.size - self.position:
            raise unsound(self.path, f"an array of {count:,} values stands in its header")
        if count <= KEPT_ARRAY:
            return [self.value(kind) for _ in range(count)]
        if kind in _SCALARS:
            self.take(count * width)
        else:
            for _ in range(count):
                self.take(self.length())
        return GgufArray(count)


def read_gguf(path: Path) -> GgufFile:
    """Read and check metadata and tensor table; no payload is read.

    Raises:
        ArtifactError: Not GGUF, truncated, an impossible count, an unknown tensor type, or offsets that overlap or
            leave the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            reader = _Reader(path, file, size)
            count, keys = _preamble(reader)
            metadata = _metadata(reader, keys)
            table = [_entry(reader) for _ in range(count)]
    except OSError as error:
        raise unsound(path, str(error)) from error
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 65536 or alignment & (alignment - 1):
        raise unsound(path, f"its alignment is {str(alignment)[:30]}")
    start = -(-reader.position // alignment) * alignment
    return GgufFile(path, reader.version, metadata, _tensors(path, table, start, alignment, size))


def _preamble(reader: _Reader) -> tuple[int, int]:
    """Counts of tensors and of metadata keys."""
    if reader.take(min(4, reader.size)) != MAGIC:
        raise unsound(reader.path, "it does not begin with GGUF")
    reader.version = reader.number("<I")
    if reader.version not in {2, 3}:
        swapped = int.from_bytes(reader.version.to_bytes(4, "little"), "big") in {2, 3}
        raise unsound(reader.path, "it is big-endian" if swapped else f"its version {reader.version} is not 2 or 3")
    count, keys = reader.length(), reader.length()
    if count > MAX_TENSORS or keys > MAX_KEYS:
        raise unsound(reader.path, f"it claims {count:,} tensors and {keys:,} keys")
    return count, keys


def _metadata(reader: _Reader, keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.string()
        if key in metadata:
            raise unsound(reader.path, f"its metadata names {key[:100]!r} twice")
        metadata[key] = reader.value(reader.number("<I"))
    return metadata


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name = reader.string()
    check_name(reader.path, name)
    dimensions = reader.number("<I")
    if dimensions > MAX_DIMENSIONS:
        raise unsound(reader.path, f"the tensor {name[:100]!r} has {dimensions} dimensions")
    # GGUF stores the fastest-running side first; everything else here is row-major.
    shape = tuple(reversed([reader.length() for _ in range(dimensions)]))
    return name, shape, reader.number("<I"), reader.length()


def _tensors(
    path: Path, table: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int, size: int
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, shape, kind, offset in table:
        if name in tensors:
            raise unsound(path, f"the tensor {name[:100]!r} stands twice")
        stored, storage = _stored_bytes(path, name, shape, kind)
        if offset % alignment:
            raise unsound(path, f"the tensor {name[:100]!r} is not aligned to {alignment} bytes")
        end = start + offset + stored
        if end > size:
            raise unsound(path, f"the tensor {name[:100]!r} ends at byte {end:,} and the file has {size:,}")
        tensors[name] = Tensor(name, storage, shape, path, start + offset, stored)
    check_layout(path, tensors.values())
    return tensors


def _stored_bytes(path: Path, name: str, shape: tuple[int, ...], kind: int) -> tuple[int, str]:
    if kind not in TYPES:
        raise ArtifactError(
            f"{path.name} stores {name[:100]!r} in ggml type {kind}, which is not known here.",
            why="Its width cannot be read from its bytes. Some projects give numbers of their own to new types.",
            fix="quantize it with llama.cpp's own types, or upgrade: pip install -U mlflow-quantgov",
        )
    storage = TYPES[kind]
    if shape and shape[-1] % storage.block:
        raise unsound(path, f"the rows of {name[:100]!r} are no multiple of {storage.block}, as {storage.name} needs")
    return prod(shape) // storage.block * storage.bytes, storage.name

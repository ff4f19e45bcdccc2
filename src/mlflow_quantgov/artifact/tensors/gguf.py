"""GGUF, read from header and tensor table alone. Source: docs/gguf.md of ggml."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlflow_quantgov.artifact.tensors.ggml_types import TYPES
from mlflow_quantgov.artifact.tensors.types import Tensor
from mlflow_quantgov.errors import ArtifactError

MAGIC = b"GGUF"
MAX_TENSORS = 1_000_000
MAX_KEYS = 100_000
MAX_STRING = 16_000_000
MAX_ARRAY = 10_000_000
MAX_DIMENSIONS = 4
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufFile:
    """Metadata and tensor table of one file."""

    path: Path
    version: int
    metadata: dict[str, Any]
    """Scalars and strings whole; arrays as lists."""
    tensors: dict[str, Tensor]


class _Reader:
    """Reads numbers and strings, and refuses to go past the end of the file."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size

    def take(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise _bad(self.path, f"it ends after {self.size:,} bytes, in the middle of its header")
        return self.file.read(count)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self) -> str:
        length = self.number("<Q")
        if length > MAX_STRING:
            raise _bad(self.path, f"a text of {length:,} bytes in its header")
        return self.take(length).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        raise _bad(self.path, f"a value of the unknown type {kind}")

    def array(self) -> list[Any]:
        kind, count = self.number("<I"), self.number("<Q")
        width = struct.calcsize(_SCALARS[kind]) if kind in _SCALARS else 8
        if kind == _ARRAY or count > MAX_ARRAY or count * width > self.size:
            raise _bad(self.path, f"an array of {count:,} values in its header")
        if kind in _SCALARS:
            return list(struct.unpack(f"<{count}{_SCALARS[kind][1]}", self.take(count * width)))
        return [self.value(kind) for _ in range(count)]


def read_gguf(path: Path) -> GgufFile:
    """Read and check metadata and tensor table; no payload is read.

    Raises:
        ArtifactError: Not GGUF, truncated, an impossible count, an unknown tensor type, or offsets that leave the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            reader = _Reader(path, file, size)
            if reader.take(4) != MAGIC:
                raise _bad(path, "it does not begin with GGUF")
            version = reader.number("<I")
            if version not in {2, 3}:
                raise _bad(path, f"its version {version} is not 2 or 3")
            count, keys = reader.number("<Q"), reader.number("<Q")
            if count > MAX_TENSORS or keys > MAX_KEYS:
                raise _bad(path, f"it claims {count:,} tensors and {keys:,} keys")
            metadata = _metadata(reader, keys)
            table = [_entry(reader) for _ in range(count)]
            alignment = metadata.get("general.alignment", 32)
            if not isinstance(alignment, int) or not 0 < alignment <= 65536:
                raise _bad(path, f"its alignment is {alignment!r}")
            start = -(-file.tell() // alignment) * alignment
    except OSError as error:
        raise _bad(path, str(error)) from error
    return GgufFile(path, version, metadata, _tensors(path, table, start, size))


def _metadata(reader: _Reader, keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.string()
        if key in metadata:
            raise _bad(reader.path, f"its metadata names {key[:100]!r} twice")
        metadata[key] = reader.value(reader.number("<I"))
    return metadata


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name = reader.string()
    dimensions = reader.number("<I")
    if dimensions > MAX_DIMENSIONS:
        raise _bad(reader.path, f"the tensor {name[:100]!r} has {dimensions} dimensions")
    # GGUF stores the fastest-running side first; everything else here is row-major.
    shape = tuple(reversed([reader.number("<Q") for _ in range(dimensions)]))
    return name, shape, reader.number("<I"), reader.number("<Q")


def _tensors(path: Path, table: list[tuple[str, tuple[int, ...], int, int]], start: int, size: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, shape, kind, offset in table:
        if kind not in TYPES:
            raise _bad(path, f"the tensor {name[:100]!r} has the unknown type {kind}")
        if name in tensors:
            raise _bad(path, f"the tensor {name[:100]!r} stands twice")
        storage, elements = TYPES[kind], 1
        for side in shape:
            elements *= side
        if elements > 2**62 or (shape and shape[-1] % storage.block):
            raise _bad(path, f"the tensor {name[:100]!r} has an impossible shape for {storage.name}")
        stored = elements // storage.block * storage.bytes
        if start + offset + stored > size:
            raise _bad(path, f"the tensor {name[:100]!r} ends at byte {start + offset + stored:,} and the file has {size:,}")
        tensors[name] = Tensor(name, storage.name, shape, path, start + offset, stored)
    end = 0
    for tensor in sorted(tensors.values(), key=lambda one: (one.offset, one.size)):
        if tensor.size and tensor.offset < end:
            raise _bad(path, f"the tensor {tensor.name[:100]!r} overlaps another")
        end = max(end, tensor.offset + tensor.size)
    return tensors


def _bad(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{path.name} is not a sound GGUF file: {problem}.",
        why="Facts about a model are read from its bytes; from these they cannot be.",
        fix="copy or download the file again, then quantgov inspect PATH",
    )

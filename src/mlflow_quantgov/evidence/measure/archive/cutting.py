"""Where a file is cut into pieces, so that two versions of a model share the pieces that they share.

Safetensors and GGUF are cut at their tensors, whatever file these lie in: a changed header, other shards or a new head leave all other
tensors' pieces as they were. Whatever else there is (headers, tokenizers, pickles, graphs) is cut by its content, so that pieces
find themselves again after bytes were put in before them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.artifact.weights import tensors_in
from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.evidence.measure.archive.coding import MAX_PIECE

LEAST_PIECE = 256 * 1024
MOST_PIECE = 4 * 1024 * 1024
"""Of a piece that is cut by its content; a tensor's may be as long as `MAX_PIECE`."""
_BOUNDARY_BITS = np.uint32(20)
"""A piece ends where so many bits of the rolling hash are zero: once in a megabyte."""
_STEP = 512 * 1024
_WINDOW = 32
"""Bytes that the rolling hash sees."""
_WIDTHS = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}


@dataclass(frozen=True)
class Piece:
    """Some bytes of a file."""

    data: bytes
    offset: int
    width: int | None
    """Bytes per number; None where nobody knows."""
    tensor: str | None

    @property
    def lead(self) -> int:
        """Bytes before the first number, if numbers are aligned in the file."""
        return 0 if self.tensor is not None else -self.offset % 8


def cut(path: Path) -> Iterator[Piece]:
    """The pieces of a file, in order and without gaps; one of them is in memory at a time.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        for tensor in [*_tensors(path), None]:
            yield from _by_content(file, position, (tensor.offset if tensor else size) - position)
            if tensor is not None:
                yield from _tensor_pieces(file, tensor)
                position = tensor.offset + tensor.size


def _tensors(path: Path) -> list[Tensor]:
    """Tensors in the order of their bytes; none where the file's header is not understood: it is archived all the same."""
    try:
        return sorted((one for one in tensors_in({path.name: path}) if one.size), key=lambda one: one.offset)
    except ArtifactError:
        return []


def _tensor_pieces(file: BinaryIO, tensor: Tensor) -> Iterator[Piece]:
    """From the tensor's own start on, so that rows added to its end leave the first pieces as they were."""
    width = _WIDTHS.get(tensor.dtype, 1)
    for start in range(0, tensor.size, MAX_PIECE):
        data = file.read(min(MAX_PIECE, tensor.size - start))
        if data:
            yield Piece(data, tensor.offset + start, width, tensor.name)


def _by_content(file: BinaryIO, offset: int, size: int) -> Iterator[Piece]:
    buffer, left = b"", max(0, size)  # a file that changes while its header is read may end before its last tensor
    while left or buffer:
        buffer += (more := file.read(min(left, MOST_PIECE - len(buffer))))
        # A file that became shorter meanwhile ends here; whoever compares its digest finds out.
        left = left - len(more) if more else 0
        length = _first_boundary(buffer)
        yield Piece(buffer[:length], offset, None, None)
        offset, buffer = offset + length, buffer[length:]


def _first_boundary(buffer: bytes) -> int:
    """Length of the piece with which a buffer begins."""
    for start in range(LEAST_PIECE, len(buffer), _STEP):
        window = np.frombuffer(buffer[start - _WINDOW : start + _STEP], dtype=np.uint8)
        hits = np.flatnonzero(_rolling(window)[_WINDOW:] >> (np.uint32(32) - _BOUNDARY_BITS) == 0)
        if len(hits):
            return start + int(hits[0]) + 1
    return len(buffer)


def _rolling(data: NDArray[np.uint8]) -> NDArray[Any]:
    """At each byte a hash of it and the 31 before it: the sum of a random number for each byte, shifted by its distance.

    Source: Xia et al., "FastCDC" (USENIX ATC 2016), the gear hash. Windows of twice the length are two of the single length.
    """
    sums = _gears()[data]
    for span in (1, 2, 4, 8, 16):
        longer = sums.copy()
        longer[span:] += sums[:-span] << np.uint32(span)
        sums = longer
    return sums


@cache
def _gears() -> NDArray[np.uint32]:
    """256 numbers that must never change: pieces of later archives would not be those of earlier ones."""
    digests = b"".join(hashlib.sha256(bytes([value])).digest()[:4] for value in range(256))
    return np.frombuffer(digests, dtype="<u4").astype(np.uint32)

"""One stored tensor, whatever container holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.errors import ArtifactError

MAX_NAME = 4096
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Storage types that are no quantization, and how torch spells them; safetensors and GGUF share these names."""
_NUMPY = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "BF16": "<u2", "F8_E8M0": "<u1",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies, and what its header says."""

    name: str
    dtype: str
    """The container's own name: `BF16`, `I32`, `Q4_K`."""
    shape: tuple[int, ...]
    """Row-major; for GGUF already turned round to [out, in]."""
    file: Path
    offset: int
    """From the start of the file, in bytes."""
    size: int
    """Stored bytes."""

    @property
    def elements(self) -> int:
        """Number of stored elements."""
        return prod(self.shape)

    def raw(self, limit: int | None = None) -> NDArray[np.uint8]:
        """Stored bytes, memory-mapped; only the first `limit` where given.

        Raises:
            ArtifactError: The file became shorter since its header was read.
        """
        size = self.size if limit is None else min(limit, self.size)
        if size == 0:
            return np.zeros(0, dtype=np.uint8)
        try:
            return np.memmap(self.file, dtype=np.uint8, mode="r", offset=self.offset, shape=(size,))
        except (OSError, ValueError) as error:
            raise unsound(self.file, "it changed while it was read") from error

    def stored(self) -> NDArray[Any]:
        """Stored numbers in the tensor's shape, memory-mapped; bfloat16 as its bit patterns (uint16).

        Raises:
            ArtifactError: The storage type has no numpy equivalent.
        """
        if self.dtype not in _NUMPY:
            raise unsound(self.file, f"the tensor {self.name[:100]!r} of type {self.dtype} cannot be read as numbers")
        return self.raw().view(_NUMPY[self.dtype]).reshape(self.shape)

    def values(self) -> NDArray[Any]:
        """Numbers in the tensor's shape; bfloat16 is widened to float32, exactly.

        Raises:
            ArtifactError: The storage type has no numpy equivalent.
        """
        stored = self.stored()
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32) if self.dtype == "BF16" else stored


def check_name(path: Path, name: str) -> None:
    """Refuse tensor names that cannot be written down, or that read like a path out of somewhere.

    Raises:
        ArtifactError: The name is empty, too long, not UTF-8, or has control characters or `..` parts.
    """
    plain = 0 < len(name) <= MAX_NAME and name.isprintable() and not {"..", "."} & set(name.split("/"))
    if not plain or "\\" in name:
        raise unsound(path, f"it names a tensor {name[:100]!r}")


def check_layout(path: Path, tensors: Iterable[Tensor]) -> int:
    """Refuse tensors that share bytes.

    Returns:
        The sum of their sizes in bytes.

    Raises:
        ArtifactError: Two tensors overlap.
    """
    end = total = 0
    for tensor in sorted(tensors, key=lambda one: (one.offset, one.size)):
        if tensor.size and tensor.offset < end:
            raise unsound(path, f"the tensor {tensor.name[:100]!r} overlaps another")
        end = max(end, tensor.offset + tensor.size)
        total += tensor.size
    return total


def unsound(path: Path, problem: str) -> ArtifactError:
    """The error for a file whose header does not hold what it says."""
    return ArtifactError(
        f"{path.name} is not a sound model file: {problem}.",
        why="Facts about a model are read from its bytes; from these they cannot be.",
        fix="copy or download the file again, then quantgov inspect PATH",
    )

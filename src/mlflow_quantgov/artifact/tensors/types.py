"""One stored tensor, whatever container holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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
        count = 1
        for side in self.shape:
            count *= side
        return count

    def raw(self, limit: int | None = None) -> NDArray[np.uint8]:
        """Stored bytes, memory-mapped; only the first `limit` where given."""
        size = self.size if limit is None else min(limit, self.size)
        if size == 0:
            return np.zeros(0, dtype=np.uint8)
        return np.memmap(self.file, dtype=np.uint8, mode="r", offset=self.offset, shape=(size,))

"""Reads the files in which `llama-perplexity --save-all-logits FILE` keeps a model's log-probabilities.

The layout is that of llama.cpp's tools/perplexity/perplexity.cpp as of build b11434 (October 2026), little-endian; it has
no version number of its own:

- `_logits_`, then int32 each: tokens per chunk (n_ctx), vocabulary size, number of chunks
- int32 tokens, n_ctx of each chunk; where the model wants it, a chunk is evaluated with the token that begins a text in
  place of its first
- for each chunk its second half, the n_ctx - 1 - n_ctx // 2 positions from n_ctx // 2 on: float32 scale and minimum, one
  uint16 code for each token of the vocabulary, and one of padding where their number is odd.
  ln p(token) = minimum + scale * code; whatever is less likely than e^-16 of the most likely token has the code 0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.errors import UsageError, no_such_file

_MAGIC, _HEADER = b"_logits_", struct.Struct("<8siii")
MAX_CONTEXT, MAX_VOCABULARY = 1 << 20, 1 << 22
_RANGE = 15.999
"""A row that spans so many nats was cut at its lower end, so that its code 0 means "or less"."""
_RANGE_MOST = 1e-3
"""Largest step between codes: 16 nats in 65,535 steps are 2.4e-4."""
_SUM_LOW, _SUM_HIGH = 0.9, 1.25
"""Of the probabilities of one row: rounding, and up to a million tokens raised to e^-16 of the most likely one."""
_STORED = (
    "write it again: llama-perplexity -m PARENT.gguf -f TEXT -c 512 --save-all-logits FILE (and let it run to its end)"
)


@dataclass(frozen=True)
class SavedRows:
    """Log-probabilities of some positions as they were saved."""

    logs: NDArray[np.float64]
    """Shape [positions, vocabulary]; what was cut has the row's minimum."""
    cut: NDArray[np.bool_]
    """The same shape: where the value is only an upper bound."""
    raw: NDArray[np.uint16]
    """The very bytes of each row, for bitwise comparison."""


class SavedLogits:
    """One file, opened and checked. Chunks are read when they are asked for. Use as a context manager.

    Args:
        path: The file.

    Raises:
        UsageError: It is missing, no such file, cut off, or its counts do not fit its size.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise no_such_file(path, "There are no saved logits to read.")
        self.path = path
        self._file = path.open("rb")
        try:
            self._check(path.stat().st_size)
        except BaseException:
            self.close()
            raise

    def _check(self, size: int) -> None:
        head = self._file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise self._bad("it does not begin with `_logits_` and three counts")
        _, self.context, self.vocabulary, self.chunks = _HEADER.unpack(head)
        if not 4 <= self.context <= MAX_CONTEXT or not 2 <= self.vocabulary <= MAX_VOCABULARY or self.chunks < 1:
            raise self._bad(
                f"it claims {self.chunks} chunks of {self.context} tokens and a vocabulary of {self.vocabulary}"
            )
        self.first = self.context // 2
        self.positions = self.context - 1 - self.first
        self._width = 4 + 2 * ((self.vocabulary + 1) // 2)
        self._rows_at = _HEADER.size + 4 * self.context * self.chunks
        wanted = self._rows_at + 2 * self._width * self.positions * self.chunks
        if size != wanted:
            problem = "it was cut off" if size < wanted else "something follows its last row"
            raise self._bad(f"{problem}: its counts ask for {wanted:,} bytes, it has {size:,}")

    def tokens(self, chunk: int) -> list[int]:
        """Token ids of a chunk.

        Raises:
            UsageError: One is outside the vocabulary.
        """
        found = self._read(_HEADER.size + 4 * self.context * chunk, self.context, np.dtype("<i4"))
        if found.min() < 0 or found.max() >= self.vocabulary:
            raise self._bad(f"chunk {chunk} names a token outside its vocabulary of {self.vocabulary}")
        return [int(token) for token in found]

    def rows(self, chunk: int, part: slice) -> SavedRows:
        """Log-probabilities at some of a chunk's saved positions, the first of which follows `first` tokens.

        Raises:
            UsageError: A row is no distribution.
        """
        count = part.stop - part.start
        at = self._rows_at + 2 * self._width * (self.positions * chunk + part.start)
        raw = self._read(at, count * self._width, np.dtype("<u2")).reshape(count, self._width)
        scale, least = raw[:, :4].copy().view("<f4").astype(np.float64).T[:, :, None]
        codes = raw[:, 4 : 4 + self.vocabulary]
        if not (
            np.isfinite(scale).all()
            and np.isfinite(least).all()
            and (scale >= 0).all()
            and (scale <= _RANGE_MOST).all()
        ):
            raise self._no_distribution(chunk)
        logs = codes * scale
        logs += least
        sums = np.exp(np.minimum(logs, 1.0)).sum(axis=1)
        if sums.min() < _SUM_LOW or sums.max() > _SUM_HIGH:
            raise self._no_distribution(chunk)
        return SavedRows(logs, (codes == 0) & (scale * 65535 >= _RANGE), raw)

    def _read(self, at: int, count: int, kind: np.dtype[Any]) -> NDArray[Any]:
        self._file.seek(at)
        data = self._file.read(count * kind.itemsize)
        if len(data) != count * kind.itemsize:
            raise self._bad("it became shorter while it was read")
        return np.frombuffer(data, dtype=kind)

    def _no_distribution(self, chunk: int) -> UsageError:
        return self._bad(f"the rows of chunk {chunk} are no probabilities")

    def _bad(self, problem: str) -> UsageError:
        return UsageError(
            f"{self.path.name} is no file of llama.cpp's saved logits: {problem}.",
            why="Nothing was measured.",
            fix=_STORED,
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> SavedLogits:
        """Return the opened file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

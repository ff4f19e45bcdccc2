"""A llama.cpp context: decode tokens of several sequences at once and read logits back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import Batch, Llama
from mlflow_quantgov.artifact.runtimes.llama_cpp.interrupts import interrupts_wait
from mlflow_quantgov.errors import ArtifactError, UsageError

MAX_SEQUENCES = 256
"""llama.cpp's own limit (`LLAMA_MAX_SEQ`)."""


@dataclass(frozen=True)
class Entry:
    """One token to decode."""

    token: int
    position: int
    sequences: tuple[int, ...]
    """Sequences that it belongs to: more than one shares its work among continuations of one context."""
    wanted: bool
    """Whether next-token logits are wanted here."""


class Context:
    """Key-value memory of one shape on a loaded model. Not safe for use by several threads at once.

    Args:
        llama: The library.
        model: Pointer to the loaded model.
        vocabulary: Logits per position.
        cells: Tokens that fit into the memory (per sequence, or altogether where `shared`).
        sequences: Independent sequences.
        threads: Worker threads.
        chunk: Tokens per call of `llama_decode`: bounds the compute buffers and the logits held at once.
        shared: One memory for all sequences, so that a token may belong to several.

    Raises:
        UsageError: The memory does not fit.
    """

    def __init__(
        self,
        llama: Llama,
        model: int,
        vocabulary: int,
        *,
        cells: int,
        sequences: int,
        threads: int,
        chunk: int,
        shared: bool,
    ) -> None:
        self._llama = llama
        self._vocabulary = vocabulary
        self._chunk = chunk
        self.cells = cells
        self.sequences = sequences
        self.shared = shared
        params = llama.context_params(
            n_ctx=cells if shared else cells * sequences,
            n_batch=chunk,
            n_ubatch=chunk,
            n_seq_max=sequences,
            n_outputs_max=0,
            n_outputs_max_per_seq=0,
            n_threads=threads,
            n_threads_batch=threads,
            kv_unified=int(shared),
        )
        with interrupts_wait():
            self._pointer: int | None = llama.c.llama_init_from_model(model, params)
        if not self._pointer:
            raise UsageError(
                f"llama.cpp could not make room for {sequences} sequences of {cells} tokens.",
                why="The key-value memory of that many tokens does not fit into this machine's memory.",
                fix="use a smaller context or batch",
            )
        self._memory = llama.c.llama_get_memory(self._pointer)

    def decode(self, entries: Sequence[Entry]) -> Iterator[NDArray[np.float32]]:
        """Process tokens in order, in as many calls as needed. The iterator must be exhausted.

        Yields:
            Next-token logits of each wanted entry, in their order, shape [vocabulary]; valid until the next one is
            asked for.

        Raises:
            ArtifactError: llama.cpp failed, or gave logits that are not finite.
        """
        for start in range(0, len(entries), self._chunk):
            chunk = entries[start : start + self._chunk]
            self._process(chunk)
            for i, entry in enumerate(chunk):
                if entry.wanted:
                    yield self._row(i)

    def _row(self, index: int) -> NDArray[np.float32]:
        """Logits of the given entry of the last call."""
        pointer = self._llama.c.llama_get_logits_ith(self._pointer, index)
        row: NDArray[np.float32] = np.ctypeslib.as_array(pointer, (self._vocabulary,))
        if not np.isfinite(row).all():
            raise ArtifactError(
                "The model computes logits that are not finite.",
                why="No score or text of it means anything.",
                fix="quantize again, or check the file with `quantgov inspect`",
            )
        return row

    def _process(self, entries: Sequence[Entry]) -> None:
        """One call of `llama_decode`."""
        count = len(entries)
        token = (ctypes.c_int32 * count)(*(entry.token for entry in entries))
        position = (ctypes.c_int32 * count)(*(entry.position for entry in entries))
        counts = (ctypes.c_int32 * count)(*(len(entry.sequences) for entry in entries))
        members = [(ctypes.c_int32 * len(entry.sequences))(*entry.sequences) for entry in entries]
        pointers = (ctypes.POINTER(ctypes.c_int32) * count)(
            *(ctypes.cast(ids, ctypes.POINTER(ctypes.c_int32)) for ids in members)
        )
        wanted = (ctypes.c_int8 * count)(*(int(entry.wanted) for entry in entries))
        status = self._llama.c.llama_decode(
            self._pointer, Batch(count, token, None, position, counts, pointers, wanted)
        )
        if status != 0:
            raise ArtifactError(
                f"llama.cpp could not process {count} tokens (status {status}).",
                why="1 means that the key-value memory is full, other values an error inside llama.cpp.",
                fix="use a smaller batch, or a larger context",
            )

    def clear(self) -> None:
        """Forget every sequence."""
        self._llama.c.llama_memory_clear(self._memory, False)

    def forget(self, sequence: int) -> None:
        """Forget one sequence, so that its place can be used again."""
        self._llama.c.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        """Free the memory."""
        if self._pointer:
            self._llama.c.llama_free(self._pointer)
            self._pointer = None

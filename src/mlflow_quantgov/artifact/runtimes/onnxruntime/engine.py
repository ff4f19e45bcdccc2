"""What the two engines share: logits of whole sequences, greedy answers, one timed load."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Timing

Ended = Callable[[Sequence[int]], bool]
"""Whether the tokens of an answer so far hold its end."""


class Engine(ABC):
    """Runs one graph."""

    name: str
    """`genai` or `session`."""
    library: str
    """Distribution with version."""
    mixed_lengths: bool
    """Whether prompts of different lengths may be continued side by side."""

    @abstractmethod
    def logits(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Next-token logits of fresh sequences, shape [len(sequences), longest, vocabulary]; rows padded at the end."""

    @abstractmethod
    def answer(self, prompts: Sequence[Sequence[int]], max_tokens: int, ended: Ended) -> list[list[int]]:
        """Greedy continuation of each prompt, side by side, until all have ended or `max_tokens` are written."""

    @abstractmethod
    def time(self, prompts: NDArray[np.int64], output_tokens: int) -> Timing:
        """Time a prefill of prompts [batch, length] and `output_tokens` steps of one token each."""

    @abstractmethod
    def ran(self) -> dict[str, int] | None:
        """Operators executed in one pass, to their number; None where the engine cannot tell."""

    @abstractmethod
    def close(self) -> None:
        """Free the graph."""


def padded(sequences: Sequence[Sequence[int]], padding: int, dtype: Any) -> NDArray[Any]:
    """Sequences of different lengths as one array, padded at the end."""
    longest = max(len(one) for one in sequences)
    found = np.full((len(sequences), longest), padding, dtype=dtype)
    for row, one in zip(found, sequences, strict=True):
        row[: len(one)] = one
    return found

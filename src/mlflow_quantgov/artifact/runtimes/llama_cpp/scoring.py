"""Log-probabilities of continuations: several at once, each context processed once for all of its continuations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Score
from mlflow_quantgov.artifact.runtimes.llama_cpp.context import Context, Entry
from mlflow_quantgov.artifact.runtimes.llama_cpp.vocabulary import Vocabulary
from mlflow_quantgov.artifact.runtimes.pairs import split_pair

MAX_TOGETHER = 64
"""Continuations processed side by side."""


@dataclass(frozen=True)
class Pair:
    """One context with one continuation, as token ids, neither empty."""

    index: int
    context: tuple[int, ...]
    continuation: tuple[int, ...]


def encode(vocabulary: Vocabulary, index: int, context: str, continuation: str) -> Pair:
    """Token ids of a pair (see `split_pair`).

    Raises:
        UsageError: The continuation has no tokens of its own.
    """

    def tokenize(text: str) -> list[int]:
        return vocabulary.tokenize(text, add_special=True)

    before, after = split_pair(tokenize, vocabulary.start, index, context, continuation)
    return Pair(index, tuple(before), tuple(after))


def log_probability(row: NDArray[np.float32], token: int) -> float:
    """Natural log of the softmax of `row` [vocabulary] at `token`."""
    top = row.max()
    return float(row[token] - top) - float(np.log(np.exp(row - top).sum(dtype=np.float64)))


def packs(pairs: Sequence[Pair], room: int) -> Iterator[list[list[Pair]]]:
    """Groups of pairs with one context, packed so that a pack's tokens fit into `room` wherever a single group does.

    Yields:
        Packs: lists of groups; at most `MAX_TOGETHER` pairs in a pack.
    """
    groups: dict[tuple[int, ...], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.context, []).append(pair)
    pack: list[list[Pair]] = []
    used = together = 0
    for context, group in groups.items():
        while group:
            part, size = _part(group, room - len(context))
            group = group[len(part) :]
            size += len(context)
            if pack and (used + size > room or together + len(part) > MAX_TOGETHER):
                yield pack
                pack, used, together = [], 0, 0
            pack.append(part)
            used += size
            together += len(part)
    if pack:
        yield pack


def _part(group: list[Pair], room: int) -> tuple[list[Pair], int]:
    """The first pairs of a group whose continuations fit into `room` (at least one), and their tokens."""
    size = count = 0
    for pair in group[:MAX_TOGETHER]:
        if count and size + len(pair.continuation) > room:
            break
        size += len(pair.continuation)
        count += 1
    return group[:count], size


def tokens_of(pack: Sequence[Sequence[Pair]]) -> int:
    """Cells that a pack occupies."""
    return sum(len(group[0].context) + sum(len(pair.continuation) for pair in group) for group in pack)


def score_pack(context: Context, pack: Sequence[Sequence[Pair]]) -> Iterator[tuple[int, Score]]:
    """Score one pack in a context whose memory is shared by its sequences.

    Yields:
        Index of each pair, with its score.
    """
    entries: list[Entry] = []
    readers: list[list[tuple[int, int]]] = []  # per wanted entry: (pair index, token whose probability it gives)
    sequence = 0
    for group in pack:
        members = tuple(range(sequence, sequence + len(group)))
        sequence += len(group)
        last = len(group[0].context) - 1
        entries += [Entry(token, at, members, at == last) for at, token in enumerate(group[0].context)]
        readers.append([(pair.index, pair.continuation[0]) for pair in group])
        for member, pair in zip(members, group, strict=True):
            for at, (token, following) in enumerate(zip(pair.continuation, pair.continuation[1:], strict=False)):
                entries.append(Entry(token, last + 1 + at, (member,), True))
                readers.append([(pair.index, following)])
    context.clear()
    sums: dict[int, tuple[float, bool, int]] = {}
    for row, wanted in zip(context.decode(entries), readers, strict=True):
        top = int(row.argmax())
        for index, token in wanted:
            total, greedy, count = sums.get(index, (0.0, True, 0))
            sums[index] = (total + log_probability(row, token), greedy and token == top, count + 1)
    for index, (total, greedy, count) in sums.items():
        yield index, Score(logprob=total, is_greedy=greedy, tokens=count)

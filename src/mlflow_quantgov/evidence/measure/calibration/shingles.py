"""Passages of public sets, known by digests of eight words in a row, so that the list of them copies nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.measure.calibration.overlap import normalise

WORDS = 8
STRIDE = 4
"""Words from one noted shingle of a passage to the next."""


def shingles_of(passage: str) -> list[str]:
    """The shingles that stand for a passage in `policies/calibration/generic-sets.yaml`."""
    words = words_of(passage)
    return [_shingle(words[at : at + WORDS]) for at in range(0, len(words) - WORDS + 1, STRIDE)]


def words_of(text: str) -> list[str]:
    """Words without case, punctuation and layout."""
    return normalise(text).split()


def found_in(documents: Sequence[str], known: Collection[str]) -> frozenset[str]:
    """Which of the known shingles stand anywhere in the documents.

    The lengths of eight words say almost always that they are none of the known ones, so that few are hashed.

    Args:
        documents: Texts.
        known: Shingles in the form of `shingles_of`.
    """
    wanted = frozenset(known)
    lengths = np.unique(np.array([_packed(one.partition(":")[0]) for one in wanted], dtype=np.uint64))
    found = set()
    for document in documents:
        words = words_of(document)
        for at in _places(words, lengths):
            shingle = _shingle(words[at : at + WORDS])
            if shingle in wanted:
                found.add(shingle)
    return frozenset(found)


def _places(words: Sequence[str], lengths: NDArray[np.uint64]) -> Iterator[int]:
    """Where eight words in a row have lengths that some known shingle has."""
    if len(words) < WORDS:
        return
    each = np.array([min(len(word), 255) for word in words], dtype=np.uint64)
    packed = np.zeros(len(words) - WORDS + 1, dtype=np.uint64)
    for place in range(WORDS):
        packed = (packed << np.uint64(8)) | each[place : len(words) - WORDS + 1 + place]
    yield from (int(at) for at in np.flatnonzero(np.isin(packed, lengths)))


def _shingle(words: Sequence[str]) -> str:
    digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]
    return f"{'.'.join(str(min(len(word), 255)) for word in words)}:{digest}"


def _packed(lengths: str) -> int:
    return int.from_bytes(bytes(int(one) for one in lengths.split(".")), "big")

"""Which documents are nearly contained in others, or contain them: by the share of five words in a row they have in common.

Broder, On the resemblance and containment of documents, 1997: containment of A in B is the share of A's shingles that B
has too. Here the smaller of two documents is asked, so that a copy is found within a longer text, and a cut-out as well.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDS = 5
"""Words of one shingle."""
SHARE = 0.8
"""Share of the smaller document's shingles that make two documents near copies."""
LEAST = 8
"""Shingles that a document must have, templates aside, to be compared: twelve words of its own."""
TEMPLATE = 3
"""Documents among the others from which on a shingle is a template or a turn of phrase, and no sign of a copy."""
MAX_SHINGLES = 8_000_000
"""Shingles of one side that are kept; of more, those whose hash is a multiple of some number, on both sides alike."""
MAX_CHARACTERS = 100_000
"""Characters of a document that are looked at."""
# Scripts that put no spaces between words: every sign counts as one.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_TOKEN_OR_SIGN = re.compile(rf"{_TOKEN.pattern}|[^\w\s]")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Shingles = NDArray[np.uint64]


@dataclass(frozen=True)
class _Side:
    """Shingles of many documents, one after the other."""

    shingles: Shingles
    document: NDArray[np.int64]
    """Which document each shingle is of; within a document every shingle stands once."""
    documents: int

    def only(self, kept: NDArray[np.bool_]) -> _Side:
        return _Side(self.shingles[kept], self.document[kept], self.documents)

    def sizes(self) -> NDArray[np.int64]:
        return np.bincount(self.document, minlength=self.documents)


def near_copies(documents: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """For each document, whether it is a near copy of one of the others.

    The order of either side changes nothing. Memory grows with the text, up to a few hundred MB.

    Args:
        documents: Texts.
        others: Texts that they should not be copies of; equal ones count once.

    Returns:
        One truth value for each of `documents`.
    """
    hashes: dict[str, int] = {}
    left, right = _side(documents, hashes), _side(sorted(set(others)), hashes)
    step = np.uint64(max(1, -(-max(len(left.shingles), len(right.shingles)) // MAX_SHINGLES)))
    left, right = left.only(left.shingles % step == 0), right.only(right.shingles % step == 0)
    common = _frequent(right.shingles)
    left, right = left.only(~np.isin(left.shingles, common)), right.only(~np.isin(right.shingles, common))
    found = np.zeros(left.documents, dtype=bool)
    if not len(left.shingles) or not len(right.shingles):
        return found
    shared: Any = _incidence(left, right)
    smaller = np.minimum(left.sizes()[shared.row], right.sizes()[shared.col])
    found[shared.row[(smaller >= LEAST) & (shared.data >= SHARE * smaller)]] = True
    return found


def plain(text: str) -> str:
    """Text without case, compatibility forms and invisible signs, so that trivial edits do not hide a copy."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if folded.isascii():
        return folded
    return "".join(sign for sign in folded if unicodedata.category(sign) != "Cf")


def words_and_signs(text: str) -> list[str]:
    """Words in their order, each punctuation mark as one."""
    return _TOKEN_OR_SIGN.findall(plain(text))


def _side(documents: Sequence[str], hashes: dict[str, int]) -> _Side:
    parts = [_shingles(document, hashes) for document in documents]
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    joined = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    return _Side(joined, np.repeat(np.arange(len(parts)), lengths), len(parts))


def _shingles(document: str, hashes: dict[str, int]) -> Shingles:
    words = _TOKEN.findall(plain(document[:MAX_CHARACTERS]))
    if len(words) < WORDS:
        return np.empty(0, np.uint64)
    each = np.fromiter(_hashes(words, hashes), np.uint64, len(words))
    count = len(words) - WORDS + 1
    found = np.zeros(count, np.uint64)
    for place in range(WORDS):
        found = found * _FACTOR + each[place : place + count]  # wraps around, as wanted
    # The low bits choose a sample: mix the high ones in.
    return np.unique(found ^ (found >> np.uint64(31)))


def _hashes(words: Iterable[str], known: dict[str, int]) -> Iterable[int]:
    for word in words:
        if word not in known:
            known[word] = int.from_bytes(
                hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "big"
            )
        yield known[word]


def _frequent(shingles: Shingles) -> Shingles:
    values, counts = np.unique(shingles, return_counts=True)
    return values[counts >= TEMPLATE]


def _incidence(left: _Side, right: _Side) -> Any:
    """How many shingles each pair of documents has in common, as a sparse matrix [documents, others]."""
    from scipy.sparse import csr_matrix

    both = np.intersect1d(left.shingles, right.shingles)

    def matrix(side: _Side) -> Any:
        side = side.only(np.isin(side.shingles, both))
        columns = np.searchsorted(both, side.shingles)
        ones = np.ones(len(columns), np.int32)
        return csr_matrix((ones, (side.document, columns)), shape=(side.documents, len(both)))

    return (matrix(left) @ matrix(right).T).tocoo()

"""Numbers on a local grid: per block of a row, the values that occur, and which of them each place holds.

Weights that once were quantized (a parent made from 4-bit weights, quantization-aware training, experts that were published in 4 bit)
take few different values within a group. A number of 16 bits then costs the few bits of its index, and its share of the block's list.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCKS = (32, 64, 128)
"""Places per block that an encoder tries; formats in use have groups of these sizes, or multiples."""
_POSITION_BITS = np.uint8(8)

Words = NDArray[np.unsignedinteger[Any]]
Bytes = NDArray[np.uint8]


def split(words: Words, block: int) -> tuple[Bytes, Bytes, Words, Words]:
    """Take blocks apart.

    Args:
        words: uint16 or uint32, one-dimensional; their number is a multiple of `block`.
        block: Words per block, at most 256.

    Returns:
        Number of different values of each block, less one; for each place the index of its value among those of its block, in
        ascending order; the least value of each block, and the distances less one between the others, as ordered integers.
    """
    wide = np.uint64 if words.dtype.itemsize == 4 else np.uint32
    rows: NDArray[Any] = _ordered(words).astype(wide).reshape(-1, block)
    # Value and place in one integer: one sort of plain integers gives both orders, and is several times faster than argsort.
    packed = (rows << wide(_POSITION_BITS)) | _places(block, wide)
    packed.sort(axis=1)
    places = (packed & wide(255)).astype(np.intp)
    values = packed >> wide(_POSITION_BITS)
    steps = values[:, 1:] - values[:, :-1]
    ranks = np.zeros(rows.shape, dtype=np.uint8)
    np.cumsum(steps != 0, axis=1, dtype=np.uint8, out=ranks[:, 1:])
    index = np.empty(rows.size, dtype=np.uint8)
    places += np.arange(0, rows.size, block, dtype=np.intp)[:, None]
    index[places.ravel()] = ranks.ravel()
    distances = (steps[steps != 0] - wide(1)).astype(words.dtype)
    return ranks[:, -1].copy(), index, values[:, 0].astype(words.dtype), distances


def _places(block: int, kind: type[np.unsignedinteger[Any]]) -> Words:
    return np.arange(block).astype(kind)


def join(more: Bytes, index: Bytes, least: Words, distances: Words, block: int) -> Words:
    """Put together what `split` took apart.

    Raises:
        ValueError: The parts do not fit together.
    """
    if len(least) != len(more) or len(index) != len(more) * block or len(distances) != int(more.sum(dtype=np.int64)):
        raise ValueError("the parts of a palette do not fit")
    if not len(more):
        return least.copy()
    counts = more.astype(np.int64) + 1
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)[:-1]])
    steps = np.ones(int(counts.sum()), dtype=np.int64)
    first = np.zeros(len(steps), dtype=bool)
    first[starts] = True
    steps[first] = 0
    steps[~first] += distances
    sums = np.cumsum(steps)
    values = sums + np.repeat(least.astype(np.int64) - sums[starts], counts)
    if (index.reshape(-1, block) > more[:, None]).any() or values.max() > np.iinfo(least.dtype).max:
        raise ValueError("a palette is shorter than its indices")
    return _unordered(values[(starts[:, None] + index.reshape(-1, block)).ravel()].astype(least.dtype))


def _ordered(words: Words) -> Words:
    """Bit patterns of floating point numbers as integers in the order of the numbers; every pattern has its own."""
    sign = words.dtype.type(1 << (8 * words.dtype.itemsize - 1))
    return np.where(words & sign, ~words, words | sign)


def _unordered(words: Words) -> Words:
    """The inverse of `_ordered`."""
    sign = words.dtype.type(1 << (8 * words.dtype.itemsize - 1))
    return np.where(words & sign, words ^ sign, ~words)

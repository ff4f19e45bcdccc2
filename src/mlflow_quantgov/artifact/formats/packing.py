"""Codes of a few bits inside integer words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD_BITS = {"I8": 8, "U8": 8, "I16": 16, "I32": 32, "U32": 32, "I64": 64}


def constant_words(code: int, bits: int, like: NDArray[Any]) -> NDArray[Any]:
    """Words that hold the same code everywhere along their last axis, lowest bits first, crossing word borders.

    Args:
        code: Value of each code.
        bits: Width of a code; a row of words holds a whole number of codes.
        like: Array [rows, words] of integers whose shape and type the result has.
    """
    size = like.dtype.itemsize * 8
    stream = sum(code << (bits * position) for position in range(size))
    words = [(stream >> (size * position)) & (2**size - 1) for position in range(bits)]
    unsigned = np.resize(np.array(words, dtype=f"<u{like.dtype.itemsize}"), like.shape[-1])
    return np.broadcast_to(unsigned.view(like.dtype), like.shape)


def highest_bit(words: NDArray[Any]) -> int:
    """Number of the highest bit that is set in any of some 32-bit words, counted from 1; 0 where none is."""
    joined = int(np.bitwise_or.reduce(words.reshape(-1).view(np.uint32))) if words.size else 0
    return joined.bit_length()

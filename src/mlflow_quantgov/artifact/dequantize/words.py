"""Codes of a few bits out of integer words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = 32


def unpack(words: NDArray[Any], bits: int, start: int, stop: int) -> NDArray[np.uint8]:
    """Codes of a stream of bits along the last axis, lowest bits first, crossing word borders.

    Args:
        words: Integers of any width, [..., words].
        bits: Width of a code, 1 to 8.
        start: First code of each row.
        stop: One past the last.

    Returns:
        [..., stop - start]
    """
    stream = np.ascontiguousarray(words).view(np.uint8)
    first, last = start * bits // 8, -(-stop * bits // 8)
    if 8 % bits == 0:
        per_byte = 8 // bits
        shifts = (np.arange(per_byte) * bits).astype(np.uint8)
        codes = (stream[..., first:last, None] >> shifts) & np.uint8(2**bits - 1)
        flat: NDArray[np.uint8] = codes.reshape(*stream.shape[:-1], -1)
        skip = start - first * per_byte
        chosen: NDArray[np.uint8] = flat[..., skip : skip + stop - start]
        return chosen
    # Other widths take two bytes at most; a byte of zeros stands behind the last one.
    padded = np.zeros((*stream.shape[:-1], last - first + 1), dtype=np.uint16)
    padded[..., :-1] = stream[..., first:last]
    position = np.arange(start, stop) * bits - first * 8
    byte, shift = position // 8, (position % 8).astype(np.uint16)
    pair = padded[..., byte] | (padded[..., byte + 1] << np.uint16(8))
    crossing: NDArray[np.uint8] = ((pair >> shift) & np.uint16(2**bits - 1)).astype(np.uint8)
    return crossing


def unpack_padded(words: NDArray[Any], bits: int, count: int) -> NDArray[np.uint8]:
    """Codes where each 32-bit word holds as many whole ones as fit, lowest bits first, and the rest is empty."""
    shifts = (np.arange(_WORD // bits) * bits).astype(np.uint32)
    stored = np.ascontiguousarray(words).view(np.uint32)
    codes = ((stored[..., None] >> shifts) & np.uint32(2**bits - 1)).astype(np.uint8)
    return codes.reshape(*stored.shape[:-1], -1)[..., :count]


def nibbles(packed: NDArray[np.uint8], *, low_first: bool = True) -> NDArray[np.uint8]:
    """Two 4-bit codes of each byte side by side along the last axis."""
    low, high = packed & np.uint8(15), packed >> np.uint8(4)
    pair = (low, high) if low_first else (high, low)
    return np.stack(pair, axis=-1).reshape(*packed.shape[:-1], -1)

"""ggml's block layouts. Source: ggml-common.h and ggml-quants.c of llama.cpp; checked against PyPI `gguf` in the tests.

Every function takes blocks [n, bytes] and gives the weights [n, weights] of them with their cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats
from mlflow_quantgov.artifact.dequantize.numbers import (
    E2M1,
    coarse_half,
    left_open,
    lookup,
    powers_of_two,
    small_floats,
    uniform,
)

Bytes = NDArray[np.uint8]

_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32)
_UE4M3 = small_floats(4, 3, 7, signed=False)
"""NVFP4's scales; the highest bit is ignored, and 0x7F stands for zero."""

_NOTHING = np.float32(1e-15)
"""Blocks of smaller weights are stored as zeros, with codes that mean nothing (`GROUP_MAX_EPS`)."""


def _half(blocks: Bytes, at: int) -> Floats:
    """A float16 of each block as [n, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _split(packed: Bytes) -> Bytes:
    """4-bit codes: the low halves of all bytes, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _fifth_bits(blocks: Bytes, at: int) -> Bytes:
    """Bit 4 of 32 codes, from 32 bits."""
    return np.unpackbits(blocks[:, at : at + 4], axis=-1, bitorder="little") << np.uint8(4)


def _vanished(scale: Floats, factors: NDArray[Any], top: int) -> Floats:
    """Error of factors that were rounded to zero, which is half a step; 0 for the others, with which codes were chosen anew.

    The largest factor of a block uses the whole range, so that the step says how large the vanished ones may have been.

    Args:
        scale: Of each block, [n, 1].
        factors: Whole numbers that it is multiplied with, [n, groups].
        top: Largest one there is.
    """
    sizes = np.abs(factors.astype(np.float32))
    step = np.abs(scale) * sizes.max(axis=1, keepdims=True) / np.float32(top)
    return np.where(sizes == 0, step * np.float32(0.505), np.float32(0))


def _q4_0(blocks: Bytes) -> Block:
    return _plain(_split(blocks[:, 2:]).astype(np.int8) - 8, _half(blocks, 0), -8, 7)


def _plain(codes: NDArray[Any], scale: Floats, low: int, high: int) -> Block:
    """`code * scale`."""
    return left_open(uniform(codes, scale, np.float32(0), low, high), codes, coarse_half(scale))


def _q4_1(blocks: Bytes) -> Block:
    return _shifted(_split(blocks[:, 4:]), blocks, 15)


def _q5_0(blocks: Bytes) -> Block:
    codes = (_split(blocks[:, 6:]) | _fifth_bits(blocks, 2)).astype(np.int8) - 16
    return _plain(codes, _half(blocks, 0), -16, 15)


def _q5_1(blocks: Bytes) -> Block:
    return _shifted(_split(blocks[:, 8:]) | _fifth_bits(blocks, 4), blocks, 31)


def _shifted(codes: Bytes, blocks: Bytes, top: int) -> Block:
    """`code * scale + minimum`: codes are computed before the minimum is rounded to float16, which moves the cells."""
    minimum = _half(blocks, 2)
    block = uniform(codes, _half(blocks, 0), minimum, 0, top)
    assert block.below is not None and block.above is not None
    moved = np.maximum(np.abs(minimum) * np.float32(2.0**-11), coarse_half(minimum))
    block = Block(block.values, block.below + moved, block.above + moved)
    return left_open(block, codes, coarse_half(_half(blocks, 0)))


def _q8_0(blocks: Bytes) -> Block:
    return _plain(blocks[:, 2:].view(np.int8), _half(blocks, 0), -127, 127)


def _two_bits(packed: Bytes) -> Bytes:
    """2-bit codes of 64 bytes: each 32 bytes hold 128 codes, the lowest bits those of the first 32."""
    parts = packed.reshape(len(packed), -1, 1, 32) >> np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    return (parts & np.uint8(3)).reshape(len(packed), -1)


def _spread(per_group: Any, width: int) -> Floats:
    """One number per group to one per weight."""
    return np.repeat(per_group, width, axis=-1)


def _q2_k(blocks: Bytes) -> Block:
    scales, codes = blocks[:, :16], _two_bits(blocks[:, 16:80])
    whole, factors, minimum = _half(blocks, 80), scales & 15, _half(blocks, 82)
    block = uniform(codes, _spread(whole * factors, 16), -_spread(minimum * (scales >> 4), 16), 0, 3)
    return _nested(block, codes, (whole, factors), 16, 15, (minimum, scales >> 4))


def _q3_k(blocks: Bytes) -> Block:
    count, packed = len(blocks), blocks[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=-1)
    high = (packed[:, None, 8:] >> np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]).reshape(count, 16) & 3
    whole, factors = _half(blocks, 108), (low | high << 4).astype(np.int8) - 32
    # Bit j of each of 32 bytes belongs to the j-th run of 32 weights; where it is not set, four is subtracted.
    mask = blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None]
    codes = _two_bits(blocks[:, 32:96]).astype(np.int8) - 4 * (1 - (mask.reshape(count, 256) & 1).astype(np.int8))
    return _nested(uniform(codes, _spread(whole * factors, 16), np.float32(0), -4, 3), codes, (whole, factors), 16, 32)


def _six_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of 6 bits from 12 bytes."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6) << 4], axis=-1)
    return scales, np.concatenate([second & 63, third >> 4 | (second >> 6) << 4], axis=-1)


def _runs(packed: Bytes) -> Bytes:
    """4-bit codes: of each 32 bytes the low halves, then the high ones."""
    return _split(packed.reshape(len(packed), -1, 32)).reshape(len(packed), -1)


def _with_minima(codes: NDArray[Any], blocks: Bytes, high: int) -> Block:
    """`code * scale - minimum`, with 6-bit factors of both."""
    (factors, minima), whole, minimum = _six_bits(blocks[:, 4:16]), _half(blocks, 0), _half(blocks, 2)
    block = uniform(codes, _spread(whole * factors, 32), -_spread(minimum * minima, 32), 0, high)
    return _nested(block, codes, (whole, factors), 32, 63, (minimum, minima))


def _nested(
    block: Block,
    codes: NDArray[Any],
    scales: tuple[Floats, NDArray[Any]],
    width: int,
    top: int,
    minima: tuple[Floats, NDArray[Any]] | None = None,
) -> Block:
    """A block with what its factors leave open where they were rounded to zero, or their own scale was.

    Args:
        block: The weights.
        codes: Codes, or the levels that they stand for.
        scales: Scale of each block, [n, 1], and its factors, [n, groups].
        width: Weights of a group.
        top: Largest factor there is.
        minima: The same of what is subtracted.
    """
    whole, factors = scales
    vanished = _vanished(whole, factors, top)
    error, offset = (
        vanished + coarse_half(whole) * (whole == 0) * np.abs(factors.astype(np.float32)),
        np.where(whole == 0, _NOTHING, np.zeros_like(vanished)),
    )
    if minima is not None:
        offset = np.where(vanished > 0, np.abs(minima[0]) * np.float32(0.505), offset)
        offset += coarse_half(minima[0]) * (whole == 0) * minima[1]
    return left_open(block, codes, _spread(error, width), _spread(offset, width))


def _q4_k(blocks: Bytes) -> Block:
    return _with_minima(_runs(blocks[:, 16:]), blocks, 15)


def _q5_k(blocks: Bytes) -> Block:
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1).reshape(len(blocks), 256) << 4
    return _with_minima(_runs(blocks[:, 48:]) | fifth, blocks, 31)


def _q6_k(blocks: Bytes) -> Block:
    count = len(blocks)
    low = _split(blocks[:, :128].reshape(count, 2, 64)).reshape(count, 256)
    codes = (low | _two_bits(blocks[:, 128:192]) << 4).astype(np.int8) - 32
    whole, factors = _half(blocks, 208), blocks[:, 192:208].view(np.int8)
    block = uniform(codes, _spread(whole * factors, 16), np.float32(0), -32, 31)
    return _nested(block, codes, (whole, factors), 16, 128)


def _iq4_nl(blocks: Bytes) -> Block:
    codes, scale = _split(blocks[:, 2:]), _half(blocks, 0)
    return left_open(lookup(codes, _IQ4, scale), _IQ4[codes], coarse_half(scale))


def _iq4_xs(blocks: Bytes) -> Block:
    count = len(blocks)
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=-1).reshape(count, 8)
    whole, factors = _half(blocks, 0), (low | (high & 3).astype(np.uint8) << 4).astype(np.int8) - 32
    codes = _split(blocks[:, 8:].reshape(count, 8, 16)).reshape(count, 256)
    # Of a scale that vanished every weight gets the level next to zero, so the code says nothing.
    levels = np.where(_spread(factors, 32) == 0, _IQ4[0], _IQ4[codes])
    return _nested(lookup(codes, _IQ4, _spread(whole * factors, 32)), levels, (whole, factors), 32, 32)


def _mxfp4(blocks: Bytes) -> Block:
    return lookup(_split(blocks[:, 1:]), E2M1, powers_of_two(blocks[:, :1]))


def _nvfp4(blocks: Bytes) -> Block:
    scales = np.where(blocks[:, :4] == 0x7F, np.float32(0), _UE4M3[blocks[:, :4] & np.uint8(0x7F)])
    codes = _split(blocks[:, 4:].reshape(len(blocks), 4, 8)).reshape(len(blocks), 64)
    return lookup(codes, E2M1, _spread(scales, 16))


def _thirds(packed: Bytes, count: int) -> Bytes:
    """Digits to the base of three, from bytes that hold them as a fraction of 256: the first of all bytes first."""
    shifted = packed[:, None, :] * np.array([1, 3, 9, 27, 81], dtype=np.uint8)[:count, None]
    return ((shifted.astype(np.uint16) * 3) >> 8).astype(np.uint8).reshape(len(packed), -1)


def _tq1_0(blocks: Bytes) -> Block:
    parts = [_thirds(blocks[:, :32], 5), _thirds(blocks[:, 32:48], 5), _thirds(blocks[:, 48:52], 4)]
    codes = np.concatenate(parts, axis=-1).astype(np.int8) - 1
    return _plain(codes, _half(blocks, 52), -1, 1)


def _tq2_0(blocks: Bytes) -> Block:
    return _plain(_two_bits(blocks[:, :64]).astype(np.int8) - 1, _half(blocks, 64), -1, 1)


def _q1_0(blocks: Bytes) -> Block:
    # Two levels, the scale and its negative: a step is twice the scale.
    scale = _half(blocks, 0)
    return uniform(np.unpackbits(blocks[:, 2:], axis=-1, bitorder="little"), 2 * scale, -scale, 0, 1)


def _q2_0(blocks: Bytes) -> Block:
    codes = blocks[:, 2:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & np.uint8(3)
    return _plain(codes.reshape(len(blocks), 64).astype(np.int8) - 1, _half(blocks, 0), -1, 2)


DECODERS: dict[str, Callable[[Bytes], Block]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q2_K": _q2_k, "Q3_K": _q3_k,
    "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k, "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs, "MXFP4": _mxfp4,
    "NVFP4": _nvfp4, "TQ1_0": _tq1_0, "TQ2_0": _tq2_0, "Q1_0": _q1_0, "Q2_0": _q2_0,
}  # fmt: skip

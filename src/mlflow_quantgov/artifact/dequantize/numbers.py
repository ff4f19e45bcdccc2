"""Numbers out of narrow storage types, and where each stands between its neighbours on the grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats
from mlflow_quantgov.artifact.tensors import Tensor


def small_floats(exponent: int, mantissa: int, bias: int, *, signed: bool = True, infinite: bool = False) -> Floats:
    """Every value of a float type of up to 8 bits, by code.

    Args:
        exponent: Bits of the exponent.
        mantissa: Bits of the mantissa.
        bias: Of the exponent.
        signed: Whether the highest bit is a sign.
        infinite: Whether the highest exponent stands for infinity and NaN, as in IEEE 754.
    """
    codes = np.arange(2 ** (exponent + mantissa))
    power, fraction = codes >> mantissa, (codes & (2**mantissa - 1)) / 2.0**mantissa
    values = np.where(power == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (power.astype(float) - bias))
    if infinite:
        values[power == 2**exponent - 1] = np.nan
    if signed:
        values = np.concatenate([values, -values])
    return np.asarray(values, dtype=np.float32)


def _float8_e4m3() -> Floats:
    """OCP's E4M3 without infinities: all ones is NaN."""
    table = small_floats(4, 3, 7)
    table[[0x7F, 0xFF]] = np.nan
    return table


E4M3 = _float8_e4m3()
E5M2 = small_floats(5, 2, 15, infinite=True)
E2M1 = small_floats(2, 1, 1)
"""float4: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives."""
NF4 = np.array(
    [-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0, 0.0795803, 0.1609302, 0.2461123,
     0.33791524, 0.44070983, 0.562617, 0.72295684, 1], dtype=np.float32,
)  # fmt: skip
"""Quantiles of the normal distribution. Source: Dettmers et al., QLoRA, appendix E."""
BNB_FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3], dtype=np.float32) / np.float32(
    12
)
"""bitsandbytes' own float4, which is not E2M1."""
_LEAST_NORMAL, _HALF_STEP = np.float32(2.0**-14), np.float32(2.0**-25)
"""Below the first, numbers of float16 lie twice the second apart."""
FLOAT8 = {"F8_E4M3": E4M3, "F8_E5M2": E5M2}


def powers_of_two(codes: NDArray[Any]) -> Floats:
    """E8M0 scales: 2 ** (code - 127)."""
    return np.asarray(np.exp2(codes.astype(np.float32) - 127), dtype=np.float32)


def widened(bits: NDArray[Any]) -> Floats:
    """bfloat16 bit patterns as float32."""
    wide: Floats = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def rounding_of(values: Floats, precision: float) -> Floats:
    """Largest error of rounding numbers to a float type: half the distance between neighbours there.

    Args:
        values: The numbers.
        precision: Largest relative error of the type; 2 ** -8 for bfloat16.
    """
    _, power = np.frexp(values)
    return np.asarray(np.ldexp(np.float32(precision), power - 1), dtype=np.float32)


def coarse_half(scale: Floats) -> Floats:
    """Rounding error of float16 numbers that are too small for a relative precision; 0 for the others.

    Several quantizers choose codes with the scale that they have before it is stored.
    """
    return np.where(np.abs(scale) < _LEAST_NORMAL, _HALF_STEP, np.float32(0))


def left_open(block: Block, codes: NDArray[Any], error: Floats, offset: Any = 0) -> Block:
    """A block with what rounding of scales and offsets leaves open, beyond what it has.

    Args:
        block: Weights `code * scale + offset`.
        codes: Codes, or the levels that they stand for.
        error: Of each scale; broadcastable to the codes.
        offset: Error of each offset.
    """
    if not (np.any(error) or np.any(offset)):
        return block
    reach = np.abs(codes.astype(np.float32)) + np.float32(0.5)
    blur = np.asarray(reach * error + offset, dtype=np.float32)
    return replace(block, blur=blur if block.blur is None else block.blur + blur)


def floats(tensor: Tensor, index: Any = ...) -> Floats:
    """A part of a tensor as float32; only that part is read."""
    if tensor.dtype in FLOAT8:
        return np.asarray(FLOAT8[tensor.dtype][tensor.raw().reshape(tensor.shape)[index]])
    stored = np.asarray(tensor.stored()[index])
    if tensor.dtype == "F8_E8M0":
        return powers_of_two(stored)
    return widened(stored) if tensor.dtype == "BF16" else stored.astype(np.float32)


def uniform(codes: NDArray[Any], scale: Floats, offset: Any, low: int, high: int) -> Block:
    """Weights `code * scale + offset`.

    Args:
        codes: Whole numbers, [rows, columns].
        scale: One per weight or broadcastable to it; may be negative.
        offset: The same, in units of the weights.
        low: Lowest code there is.
        high: Highest code there is.
    """
    half = np.broadcast_to(np.abs(scale) / np.float32(2), codes.shape)
    numbers = codes.astype(np.float32)
    numbers *= scale
    numbers += offset
    bottom, top = np.where(scale < 0, high, low), np.where(scale < 0, low, high)
    infinite = np.float32(np.inf)
    return Block(numbers, np.where(codes == bottom, infinite, half), np.where(codes == top, infinite, half))


def lookup(codes: NDArray[Any], table: Floats, scale: Floats) -> Block:
    """Weights `table[code] * scale`; entries of the table that are not finite are no levels.

    Args:
        codes: Indices, [rows, columns].
        table: Value of each code, in any order.
        scale: One per weight or broadcastable to it; may be negative.
    """
    levels = np.unique(table[np.isfinite(table)])
    gaps = np.concatenate([[np.inf], np.diff(levels) / 2, [np.inf]]).astype(np.float32)
    place = np.searchsorted(levels, np.where(np.isfinite(table), table, 0))
    down, up = gaps[place][codes], gaps[place + 1][codes]
    size, turned = np.abs(scale), scale < 0
    below, above = np.where(turned, up, down), np.where(turned, down, up)
    # A scale of zero leaves one level only; zero times infinity would be no number.
    with np.errstate(invalid="ignore"):
        below, above = below * size, above * size
    np.nan_to_num(below, copy=False, nan=np.inf, posinf=np.inf)
    np.nan_to_num(above, copy=False, nan=np.inf, posinf=np.inf)
    return Block((table[codes] * scale).astype(np.float32), below, above)

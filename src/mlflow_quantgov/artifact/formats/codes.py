"""Stored codes of a graph's weights: how many bits they use, and whether zero points stand in the middle."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlflow_quantgov.artifact.tensors import Tensor

_CHUNK = 1 << 20
_LEAST_CODES = 4096


@dataclass
class Codes:
    """Answers about stored codes; the same bytes are read once, however many names a hostile file gives them."""

    _bits: dict[tuple[str, int, int], float] = field(default_factory=dict)
    _equal: dict[tuple[str, int, int, str, int], bool] = field(default_factory=dict)

    def bits(self, tensor: Tensor, declared: float) -> float:
        """Width that codes of one byte really use; the width of the storage type for others and for small tensors.

        Reads until the full width is seen, which is at once for a matrix that is what it says.
        """
        if tensor.dtype not in {"I8", "U8"} or declared != 8 or tensor.elements < _LEAST_CODES:
            return declared
        key = place_of(tensor)
        if key not in self._bits:
            self._bits[key] = _used_bits(tensor)
        return self._bits[key]

    def are_all(self, tensor: Tensor, value: int) -> bool:
        """Whether every code of a tensor of at most one byte per element is this number."""
        key = (*place_of(tensor), tensor.dtype, value)
        if key not in self._equal:
            self._equal[key] = _are_all(tensor, value)
        return self._equal[key]


def _used_bits(tensor: Tensor) -> int:
    codes = tensor.raw().view(np.int8 if tensor.dtype == "I8" else np.uint8)
    low, high = int(codes[0]), int(codes[0])
    for at in range(0, codes.size, _CHUNK):
        part = codes[at : at + _CHUNK]
        low, high = min(low, int(part.min())), max(high, int(part.max()))
        if _span_bits(low, high, tensor.dtype) >= 8:
            return 8
    return _span_bits(low, high, tensor.dtype)


def _are_all(tensor: Tensor, value: int) -> bool:
    stored = tensor.raw()
    if tensor.dtype in {"U4", "I4"}:
        pair = (value & 15) * 17
        whole, odd = stored[: tensor.elements // 2], stored[tensor.elements // 2 :]
        return bool(np.all(whole == pair)) and (tensor.elements % 2 == 0 or bool(np.all(odd & 15 == value & 15)))
    if tensor.dtype in {"U8", "I8"}:
        return bool(np.all(stored == value & 255))
    return not stored.any() if value == 0 else False


def _span_bits(low: int, high: int, dtype: str) -> int:
    if dtype == "I8":
        return next((k for k in range(2, 8) if -(2 ** (k - 1)) <= low and high < 2 ** (k - 1)), 8)
    return max((high - low).bit_length(), 2)


def place_of(tensor: Tensor) -> tuple[str, int, int]:
    """Where the bytes of a tensor lie: tensors of one place are one."""
    return str(tensor.file), tensor.offset, tensor.size


def all_middle(zero: Tensor, bits: int, blocks: int) -> bool:
    """Whether packed zero points all stand in the middle of the range; what fills a row up may be anything."""
    rows = zero.raw().reshape(-1, -(-blocks * bits // 8))
    if bits not in {2, 4, 8}:
        return False
    per_byte = 8 // bits
    middle = 1 << (bits - 1)
    whole, left = divmod(blocks, per_byte)
    pattern = sum(middle << (bits * place) for place in range(per_byte))
    mask = (1 << (bits * left)) - 1
    last = bool((rows[:, whole:] & mask == pattern & mask).all()) if left else True
    return bool((rows[:, :whole] == pattern).all()) and last

"""Types that a quantizer may have held the parent in: rounding to them is not a change of the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlflow_quantgov.artifact.dequantize.gguf import PLUS_ONE
from mlflow_quantgov.artifact.dequantize.interface import Floats
from mlflow_quantgov.artifact.dequantize.numbers import widened

AS_STORED = "as stored"

Cast = Callable[[Floats], Floats]
"""Rounding of weights to a type, back as float32."""


def to_bfloat16(values: Floats) -> Floats:
    """Rounded to bfloat16 (nearest, ties to even), as float32."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return widened((rounded >> np.uint32(16)).astype(np.uint16))


def to_float16(values: Floats) -> Floats:
    """Rounded to float16, as float32."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def unchanged(values: Floats) -> Floats:
    """As stored."""
    return values


def plus_and_less_one(store: Cast) -> Cast:
    """What is left after one was added in float32, the sum was stored, and one was taken away again."""
    return lambda values: store(values + np.float32(1)) - np.float32(1)


CASTS: dict[str, Cast] = {
    AS_STORED: unchanged, "bfloat16": to_bfloat16, "float16": to_float16
}  # fmt: skip
_STORED_AS: dict[str, Cast] = {"F32": unchanged, "F16": to_float16, "BF16": to_bfloat16}
STORED_AS = _STORED_AS | {f"{kind}{PLUS_ONE}": plus_and_less_one(store) for kind, store in _STORED_AS.items()}
"""Storage type of an unquantized tensor to the rounding that storing it does."""

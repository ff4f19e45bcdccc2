"""ggml's storage types: elements per block, bytes per block, and bits of one weight code.

Source: ggml/include/ggml.h and ggml-common.h of llama.cpp; checked by a test against PyPI `gguf`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GgmlType:
    """One storage type."""

    name: str
    block: int
    """Elements per block."""
    bytes: int
    """Bytes per block."""
    bits: float | None
    """Width of one weight code; None for floats and integers that are no quantization."""
    group: int | None = None
    """Weights that share the finest scale."""


# Number in the file -> type. Withdrawn numbers (4, 5, 31..33, 36..38) are not listed: no reader accepts them.
TYPES: dict[int, GgmlType] = {
    0: GgmlType("F32", 1, 4, None),
    1: GgmlType("F16", 1, 2, None),
    2: GgmlType("Q4_0", 32, 18, 4, 32),
    3: GgmlType("Q4_1", 32, 20, 4, 32),
    6: GgmlType("Q5_0", 32, 22, 5, 32),
    7: GgmlType("Q5_1", 32, 24, 5, 32),
    8: GgmlType("Q8_0", 32, 34, 8, 32),
    9: GgmlType("Q8_1", 32, 40, 8, 32),
    10: GgmlType("Q2_K", 256, 84, 2, 16),
    11: GgmlType("Q3_K", 256, 110, 3, 16),
    12: GgmlType("Q4_K", 256, 144, 4, 32),
    13: GgmlType("Q5_K", 256, 176, 5, 32),
    14: GgmlType("Q6_K", 256, 210, 6, 16),
    15: GgmlType("Q8_K", 256, 292, 8, 256),
    16: GgmlType("IQ2_XXS", 256, 66, 2, 32),
    17: GgmlType("IQ2_XS", 256, 74, 2, 16),
    18: GgmlType("IQ3_XXS", 256, 98, 3, 32),
    19: GgmlType("IQ1_S", 256, 50, 1, 32),
    20: GgmlType("IQ4_NL", 32, 18, 4, 32),
    21: GgmlType("IQ3_S", 256, 110, 3, 32),
    22: GgmlType("IQ2_S", 256, 82, 2, 16),
    23: GgmlType("IQ4_XS", 256, 136, 4, 32),
    24: GgmlType("I8", 1, 1, None),
    25: GgmlType("I16", 1, 2, None),
    26: GgmlType("I32", 1, 4, None),
    27: GgmlType("I64", 1, 8, None),
    28: GgmlType("F64", 1, 8, None),
    29: GgmlType("IQ1_M", 256, 56, 1, 16),
    30: GgmlType("BF16", 1, 2, None),
    34: GgmlType("TQ1_0", 256, 54, 1.6875, 256),
    35: GgmlType("TQ2_0", 256, 66, 2, 256),
    39: GgmlType("MXFP4", 32, 17, 4, 32),
    40: GgmlType("NVFP4", 64, 36, 4, 16),
    41: GgmlType("Q1_0", 128, 18, 1, 128),
}

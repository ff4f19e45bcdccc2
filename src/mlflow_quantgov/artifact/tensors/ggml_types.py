"""ggml's storage types: elements per block, bytes per block, and bits of one weight code.

Source: ggml/include/ggml.h and ggml-common.h of llama.cpp; checked by a test against PyPI `gguf`, which does not list
Q2_0 yet.
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
    42: GgmlType("Q2_0", 64, 18, 2, 64),
}

BY_NAME = {one.name: one for one in TYPES.values()}
NUMBER_OF = {one.name: number for number, one in TYPES.items()}
SYMMETRIC = frozenset({
    "Q1_0", "Q2_0", "Q4_0", "Q5_0", "Q8_0", "Q8_1", "Q3_K", "Q6_K", "Q8_K", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
    "IQ4_NL", "IQ4_XS", "IQ3_XXS", "IQ3_S", "IQ2_XXS", "IQ2_XS", "IQ2_S",
})  # fmt: skip
"""Types without a minimum or shift beside the scale."""

# general.file_type -> its name, and the type that most weights have when rows are long enough.
# Source: enum llama_ftype in llama.h and llama_tensor_get_type in llama-quant.cpp.
FILE_TYPES: dict[int, tuple[str, str]] = {
    0: ("F32", "F32"), 1: ("F16", "F16"), 2: ("Q4_0", "Q4_0"), 3: ("Q4_1", "Q4_1"), 7: ("Q8_0", "Q8_0"),
    8: ("Q5_0", "Q5_0"), 9: ("Q5_1", "Q5_1"), 10: ("Q2_K", "Q2_K"), 11: ("Q3_K_S", "Q3_K"), 12: ("Q3_K_M", "Q3_K"),
    13: ("Q3_K_L", "Q3_K"), 14: ("Q4_K_S", "Q4_K"), 15: ("Q4_K_M", "Q4_K"), 16: ("Q5_K_S", "Q5_K"),
    17: ("Q5_K_M", "Q5_K"), 18: ("Q6_K", "Q6_K"), 19: ("IQ2_XXS", "IQ2_XXS"), 20: ("IQ2_XS", "IQ2_XS"),
    21: ("Q2_K_S", "Q2_K"), 22: ("IQ3_XS", "IQ3_S"), 23: ("IQ3_XXS", "IQ3_XXS"), 24: ("IQ1_S", "IQ1_S"),
    25: ("IQ4_NL", "IQ4_NL"), 26: ("IQ3_S", "IQ3_S"), 27: ("IQ3_M", "IQ3_S"), 28: ("IQ2_S", "IQ2_XS"),
    29: ("IQ2_M", "IQ2_S"), 30: ("IQ4_XS", "IQ4_XS"), 31: ("IQ1_M", "IQ1_M"), 32: ("BF16", "BF16"),
    36: ("TQ1_0", "TQ1_0"), 37: ("TQ2_0", "TQ2_0"), 38: ("MXFP4_MOE", "MXFP4"), 39: ("NVFP4", "NVFP4"),
    40: ("Q1_0", "Q1_0"), 41: ("Q2_0", "Q2_0"),
}  # fmt: skip

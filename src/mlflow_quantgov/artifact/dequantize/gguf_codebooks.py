"""ggml's types that store four or eight weights as one entry of a table: IQ1, IQ2 and IQ3.

The tables are those of PyPI `gguf`, which the extra `[gguf]` brings; nothing here needs it before such a matrix is met.
What the types do with signs was read in ggml-quants.c of llama.cpp and holds in every file of it that was measured
(docs/explanation/descent.md).
"""

from __future__ import annotations

import importlib.util

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Codebook
from mlflow_quantgov.errors import require

CODEBOOKS = {
    "IQ1_S": Codebook(0.49, "mixed"),
    "IQ1_M": Codebook(0.45, "mixed"),
    "IQ2_XXS": Codebook(0.35, "even"),
    "IQ2_XS": Codebook(0.30, "even"),
    "IQ2_S": Codebook(0.25, "kept"),
    "IQ3_XXS": Codebook(0.21, "even"),
    "IQ3_S": Codebook(0.17, "kept"),
}
"""The errors were measured with llama.cpp's quantizer on normally distributed weights, without an importance matrix, or
with a flat one where the type demands one."""


def reason_no_tables() -> str | None:
    """Why these types cannot be read here; None where they can."""
    if importlib.util.find_spec("gguf") is None:
        return "its tables are in a package that is not installed (pip install 'mlflow-quantgov[gguf]')"
    return None


def from_tables(rows: NDArray[np.uint8], kind: str) -> Block:
    """Weights of rows of blocks, [rows, bytes]; they have no cells.

    Raises:
        MissingExtraError: `gguf` is not installed.
    """
    gguf = require("gguf", extra="gguf", purpose=f"read weights of the type {kind}")
    # Scales of a damaged file may be no numbers; what follows from them is found by those who read the values.
    with np.errstate(all="ignore"):
        values = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])
    return Block(np.asarray(values, dtype=np.float32))

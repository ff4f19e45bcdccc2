"""One matrix that llama.cpp quantized, judged against the parent's."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlflow_quantgov.artifact.dequantize.gguf_blocks import DECODERS
from mlflow_quantgov.artifact.dequantize.gguf_codebooks import CODEBOOKS, from_tables
from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix
from mlflow_quantgov.artifact.derivation.compensation import best_column
from mlflow_quantgov.artifact.derivation.descent import LayerDescent, Verdict
from mlflow_quantgov.artifact.derivation.judge import judge
from mlflow_quantgov.artifact.derivation.judge_codebook import judge_codebook
from mlflow_quantgov.artifact.derivation.measure import Measured, measure
from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import quantized
from mlflow_quantgov.artifact.tensors.ggml_types import BY_NAME

Rows = np.ndarray[Any, Any]


def of_rows(
    child: Rows, kind: str, parent: Rows, importance: Rows | None = None, *, stretch: Rows | float = 1.0
) -> tuple[Verdict, LayerDescent, Measured]:
    """Verdict and sums.

    Args:
        child: What is quantized, [rows, columns].
        kind: The ggml type.
        parent: What it is compared with.
        importance: One number per column.
        stretch: What stored scales are multiplied with afterwards, for each weight.
    """
    rows, width = quantized(child, kind, importance), BY_NAME[kind].bytes
    factors = np.broadcast_to(np.asarray(stretch, dtype=np.float32), child.shape)

    def read(start: int, stop: int) -> Block:
        if kind in CODEBOOKS:
            return from_tables(rows[start:stop], kind)
        block = DECODERS[kind](rows[start:stop].reshape(-1, width))
        parts = (block.values, block.below, block.above, block.blur)
        return Block(*(None if one is None else one.reshape(stop - start, -1) * factors[start:stop] for one in parts))

    group = BY_NAME[kind].group
    made = Matrix("x", child.shape, kind, (), read, BY_NAME[kind].bits, group, 2.0**-11, CODEBOOKS.get(kind))
    truth = Matrix("x", parent.shape, "F32", (), lambda start, stop: Block(parent[start:stop]))
    found = measure(made, truth, lambda values: values)
    layer, verdict = judge_codebook(made, found) if made.codebook else judge(made, found, best_column([found]))
    return verdict, layer, found

"""AutoRound: matrices packed as other tools pack theirs. See `formats/auto_round.py`.

Tuned codes are up to a level away from the nearest one, so they prove no parent; with `iters=0` they are the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlflow_quantgov.artifact.dequantize.awq import awq_matrix
from mlflow_quantgov.artifact.dequantize.compressed_tensors import compressed_matrix
from mlflow_quantgov.artifact.dequantize.fp8 import scaled_matrix
from mlflow_quantgov.artifact.dequantize.gptq import gptq_matrix
from mlflow_quantgov.artifact.dequantize.interface import Matrix
from mlflow_quantgov.artifact.formats.auto_round import stores_zeros_less_one
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.scaled import scaled_matrices
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization

KIND = "auto-round"
"""Storage type of all its matrices: whoever judges them must know who chose the codes."""
_SLACK = 2.0**-8
"""Where it searches scales for plain rounding, it divides in bfloat16."""


def auto_round_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every matrix, by the packing that it has."""
    shift = 1 if stores_zeros_less_one(files) else 0
    blocks = {one.stem: one for one in scaled_matrices(files) if one.scale and one.scale.name.endswith("_scale_inv")}

    def matrix(layer: LayerQuantization) -> Matrix:
        if layer.name in blocks:
            return scaled_matrix(files, blocks[layer.name])
        if layer.type == "gptq":
            return gptq_matrix(files, layer, shift)
        if f"{layer.name}.qweight" in files.tensors:
            return awq_matrix(files, layer)
        return compressed_matrix(files, layer)

    for layer in facts.quantization.layers:
        one = matrix(layer)
        yield replace(one, kind=KIND, slack=max(one.slack, _SLACK))

"""GPTQ's layout: `weight[o, i] = (code - zero) * scale`, codes packed along the input. See `formats/gptq.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix, slack_of
from mlflow_quantgov.artifact.dequantize.numbers import coarse_half, floats, left_open, uniform
from mlflow_quantgov.artifact.dequantize.words import unpack
from mlflow_quantgov.artifact.formats.gptq import is_second_version
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization

_PARTS = ("qweight", "qzeros", "scales", "g_idx")


def gptq_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every packed matrix."""
    second = is_second_version(files)
    for layer in facts.quantization.layers:
        yield gptq_matrix(files, layer, 0 if second else 1)


def gptq_matrix(files: ArtifactFiles, layer: LayerQuantization, shift: int) -> Matrix:
    """One matrix; version 1 stores zero points less one (`shift`)."""
    parts = tuple(name for part in _PARTS if (name := f"{layer.name}.{part}") in files.tensors)
    weight, zeros, scales = (files.tensors[f"{layer.name}.{part}"] for part in _PARTS[:3])
    bits, columns, groups = int(layer.bits), layer.shape[-1], scales.shape[0]
    index = files.tensors.get(f"{layer.name}.g_idx")
    if index is not None:
        group = np.asarray(index.values()).astype(np.intp)
    else:
        group = np.minimum(np.arange(columns) // (layer.group_size or columns), groups - 1)

    def read(start: int, stop: int) -> Block:
        codes = unpack(np.asarray(weight.stored()[:, start:stop]).T, bits, 0, columns)
        middles = unpack(np.asarray(zeros.stored()), bits, start, stop).T.astype(np.int16)
        middles = (middles + shift) & (2**bits - 1)
        scale = floats(scales, np.s_[:, start:stop]).T
        block = uniform(codes, scale[:, group], (-middles * scale)[:, group], 0, 2**bits - 1)
        if scales.dtype != "F16":
            return block
        return left_open(block, codes - middles[:, group], coarse_half(scale)[:, group])

    return Matrix(
        f"{layer.name}.weight", layer.shape, "gptq", parts, read, layer.bits, layer.group_size, slack_of(scales)
    )

"""AWQ's GEMM layout: codes packed along the output, the eight of a word interleaved. See `formats/awq.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix, slack_of, unreadable
from mlflow_quantgov.artifact.dequantize.numbers import floats, uniform
from mlflow_quantgov.artifact.dequantize.words import unpack
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization

_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Nibble of a word that holds its output 0, 1, 2, ..."""


def awq_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every packed matrix."""
    for layer in facts.quantization.layers:
        yield awq_matrix(files, layer)


def awq_matrix(files: ArtifactFiles, layer: LayerQuantization) -> Matrix:
    """One matrix; the layouts of other kernels are not dequantized."""
    named = {part: files.tensors.get(f"{layer.name}.{part}") for part in ("qweight", "qzeros", "scales")}
    parts = tuple(tensor.name for tensor in named.values() if tensor is not None)
    weight, zeros, scales = named["qweight"], named["qzeros"], named["scales"]
    name, columns = f"{layer.name}.weight", layer.shape[-1]
    if layer.type != "gemm":
        return unreadable(name, layer.shape, "awq", parts, layer.bits, f"AWQ's layout {layer.type}")
    if layer.bits != 4 or weight is None or scales is None:
        return unreadable(name, layer.shape, "awq", parts, layer.bits, f"the order of {layer.bits:g}-bit AWQ codes")
    group = np.arange(columns) // (layer.group_size or columns)

    def read(start: int, stop: int) -> Block:
        codes = _outputs(weight.stored(), start, stop)
        middles: NDArray[Any] = np.full((stop - start, scales.shape[0]), 8)
        if zeros is not None:
            middles = _outputs(zeros.stored(), start, stop).astype(np.int16)
        scale = floats(scales, np.s_[:, start:stop]).T
        # A symmetric quantizer clips to as far below as above, and leaves the lowest code out.
        lowest = int(bool((middles == 8).all()) and int(codes.min(initial=1)) > 0)
        return uniform(codes, scale[:, group], (-middles * scale).astype(np.float32)[:, group], lowest, 15)

    return Matrix(name, layer.shape, "awq", parts, read, 4, layer.group_size, slack_of(scales))


def _outputs(words: NDArray[Any], start: int, stop: int) -> NDArray[np.uint8]:
    """Codes [outputs, inputs] of some outputs, from words [inputs, outputs / 8]."""
    first = start // 8
    chosen = np.asarray(words[:, first : -(-stop // 8)])
    codes = unpack(chosen, 4, 0, chosen.shape[1] * 8).reshape(len(chosen), -1, 8)[:, :, _PLACES]
    skip = start - first * 8
    return codes.reshape(len(chosen), -1)[:, skip : skip + stop - start].T

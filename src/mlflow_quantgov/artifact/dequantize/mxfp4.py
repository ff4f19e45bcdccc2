"""MXFP4 of gpt-oss: stacks of experts, stored the other way round than in the bfloat16 model. See `formats/mxfp4.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix
from mlflow_quantgov.artifact.dequantize.numbers import E2M1, lookup, powers_of_two
from mlflow_quantgov.artifact.dequantize.words import nibbles
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor

_GROUP = 32
_EXACT = 2.0**-20
"""Exponents are exact, and so is a bfloat16 weight divided by a power of two."""


def mxfp4_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every stack of experts."""
    for layer in facts.quantization.layers:
        yield _matrix(layer, files.tensors[f"{layer.name}_blocks"], files.tensors[f"{layer.name}_scales"])


def _matrix(layer: LayerQuantization, blocks: Tensor, scales: Tensor) -> Matrix:
    """`weight = table[code] * 2 ** exponent`, one exponent for 32 inputs."""
    out_features, in_features = layer.shape[-2:]
    shape = layer.shape
    if len(shape) > 2:
        shape = (*shape[:-2], in_features, out_features)

    def read(start: int, stop: int) -> Block:
        if len(shape) == 2:
            return _decoded(blocks, scales, layer.shape, 0, slice(start, stop), slice(0, in_features))
        pieces = []
        for expert in range(start // in_features, -(-stop // in_features)):
            first, last = max(start - expert * in_features, 0), min(stop - expert * in_features, in_features)
            pieces.append(_decoded(blocks, scales, layer.shape, expert, slice(0, out_features), slice(first, last)))
        return Block(
            *(np.concatenate([getattr(one, part).T for one in pieces]) for part in ("values", "below", "above"))
        )

    return Matrix(layer.name, shape, "mxfp4", (blocks.name, scales.name), read, 4, _GROUP, _EXACT)


def _decoded(
    blocks: Tensor, scales: Tensor, shape: tuple[int, ...], expert: int, outputs: slice, inputs: slice
) -> Block:
    """A part of one expert as it is stored, [outputs, inputs]."""
    groups = (-1, shape[-2], shape[-1] // _GROUP)
    near = slice(inputs.start // _GROUP, -(-inputs.stop // _GROUP))
    codes = nibbles(np.asarray(blocks.stored().reshape(*groups, _GROUP // 2)[expert, outputs, near]))
    powers = powers_of_two(np.asarray(scales.stored().reshape(groups)[expert, outputs, near]))
    inside = slice(inputs.start - near.start * _GROUP, inputs.stop - near.start * _GROUP)
    flat = codes.reshape(len(codes), -1)[:, inside]
    return lookup(flat, E2M1, np.repeat(powers, _GROUP, axis=-1)[:, inside])

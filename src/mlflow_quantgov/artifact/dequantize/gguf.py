"""GGUF: rows of blocks, with the row order of Llama's query and key matrices undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.full_precision import plain_matrix
from mlflow_quantgov.artifact.dequantize.gguf_blocks import DECODERS
from mlflow_quantgov.artifact.dequantize.gguf_codebooks import CODEBOOKS, from_tables, reason_no_tables
from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix, unreadable
from mlflow_quantgov.artifact.dequantize.numbers import floats
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.structure import canonical_parts
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor
from mlflow_quantgov.artifact.tensors.ggml_types import BY_NAME

# Architectures whose converter interleaves the two halves of each head. Source: convert_hf_to_gguf.py of llama.cpp.
_PERMUTED = {"llama", "granite", "granitemoe", "minicpm", "baichuan", "xverse", "arcee", "deci", "smollm3", "mistral3"}
_SHIFTED_NORMS = ("gemma",)
"""Their converter adds one to every norm."""
_FACTORS = (".scale", ".input_scale")
"""A factor of the whole matrix, as NVFP4 has it, and one of the activations that it is multiplied with."""
_MOST_EXPERTS = 1024
_NO_WEIGHTS = "no file stores weights in this type"
PLUS_ONE = " plus one"
"""Ends the storage type of such a norm: what the addition rounded away does not come back."""


def gguf_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every tensor, quantized or not; a stack of experts as its experts."""
    metadata = files.ggufs[0].metadata
    architecture = str(metadata.get("general.architecture"))
    experts = metadata.get(f"{architecture}.expert_count")
    names = "mixtral" if experts and architecture == "llama" else architecture
    tensors = {name: one for part in files.ggufs for name, one in part.tensors.items()}
    factors = {
        name
        for name, one in tensors.items()
        if name.endswith(_FACTORS) and one.elements <= _MOST_EXPERTS and f"{name.rpartition('.')[0]}.weight" in tensors
    }
    for tensor in tensors.values():
        if tensor.name in factors:
            continue
        stem = tensor.name.removesuffix("weight")
        beside = tuple(f"{stem}{one}" for one in ("scale", "input_scale") if f"{stem}{one}" in factors)
        for place, (name, piece) in enumerate(canonical_parts(tensor, names)):
            found = _matrix(name, piece, _order(name, piece, metadata, architecture), architecture)
            if f"{stem}scale" in beside:
                found = replace(found, read=_times(found.read, tensors[f"{stem}scale"], place))
            yield replace(found, parts=(tensor.name, *beside))


def _matrix(name: str, tensor: Tensor, order: NDArray[np.intp] | None, architecture: str) -> Matrix:
    bits, group = BY_NAME[tensor.dtype].bits, BY_NAME[tensor.dtype].group
    parts = (tensor.name,)
    if tensor.dtype in FLOATS:
        plain = plain_matrix(tensor, name)
        if architecture.startswith(_SHIFTED_NORMS) and "norm" in name:
            return plus_one(plain)
        if order is None:
            return plain
        return Matrix(name, plain.shape, plain.kind, parts, _reordered(plain.read, order))
    codebook = CODEBOOKS.get(tensor.dtype)
    problem = reason_no_tables() if codebook else _NO_WEIGHTS if tensor.dtype not in DECODERS else None
    if problem is not None:
        return unreadable(name, tensor.shape, tensor.dtype, parts, bits, f"{tensor.dtype}: {problem}")
    read = _blocks(tensor, order)
    return Matrix(name, tensor.shape, tensor.dtype, parts, read, bits, group, 2.0**-11, codebook)


def _blocks(tensor: Tensor, order: NDArray[np.intp] | None) -> Callable[[int, int], Block]:
    """Reads rows of a quantized tensor; only their bytes are touched."""
    columns, width = tensor.shape[-1], BY_NAME[tensor.dtype].bytes
    stride = columns // BY_NAME[tensor.dtype].block * width

    def read(start: int, stop: int) -> Block:
        lines = tensor.raw().reshape(-1, stride)
        chosen = np.ascontiguousarray(lines[start:stop] if order is None else lines[order[start:stop]])
        if tensor.dtype in CODEBOOKS:
            return from_tables(chosen, tensor.dtype)
        block, shape = DECODERS[tensor.dtype](chosen.reshape(-1, width)), (stop - start, columns)
        beside = (None if one is None else one.reshape(shape) for one in (block.below, block.above, block.blur))
        return Block(block.values.reshape(shape), *beside)

    return read


def _times(read: Callable[[int, int], Block], scale: Tensor, place: int) -> Callable[[int, int], Block]:
    """Rows with the factor that llama.cpp multiplies the product of a matrix with: one, or one per expert."""

    def scaled(start: int, stop: int) -> Block:
        block = read(start, stop)
        factors = floats(scale).reshape(-1)
        factor = factors[place if len(factors) > 1 else 0]
        if block.below is None or block.above is None:
            return Block(block.values * factor)
        size = np.abs(factor)
        below, above = (block.above, block.below) if factor < 0 else (block.below, block.above)
        return Block(
            block.values * factor, below * size, above * size, None if block.blur is None else block.blur * size
        )

    return scaled


def _order(name: str, tensor: Tensor, metadata: dict[str, Any], architecture: str) -> NDArray[np.intp] | None:
    """Row of the file that holds each row of the Hugging Face matrix.

    Llama's converter turns each head's rows from (half, position) to (position, half), as ggml's rotation wants.
    """
    if architecture not in _PERMUTED or ".self_attn." not in name:
        return None
    key = "head_count" if ".q_proj." in name else "head_count_kv" if ".k_proj." in name else None
    heads = metadata.get(f"{architecture}.attention.{key}", metadata.get(f"{architecture}.attention.head_count"))
    rows = tensor.shape[0]
    if key is None or type(heads) is not int or heads < 1 or rows % (2 * heads):
        return None
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _reordered(read: Callable[[int, int], Block], order: NDArray[np.intp]) -> Callable[[int, int], Block]:
    """Rows of a float tensor in another order; runs of a head lie close together in the file."""

    def reordered(start: int, stop: int) -> Block:
        wanted = order[start:stop]
        first, last = int(wanted.min()), int(wanted.max()) + 1
        if last - first > 8 * (stop - start):
            return Block(np.concatenate([read(row, row + 1).values for row in wanted.tolist()]))
        return Block(read(first, last).values[wanted - first])

    return reordered


def plus_one(stored: Matrix) -> Matrix:
    """A norm to which one was added before it was stored, as it was before."""

    def less_one(start: int, stop: int) -> Block:
        return Block(stored.read(start, stop).values - np.float32(1))

    return replace(stored, kind=f"{stored.kind}{PLUS_ONE}", read=less_one)

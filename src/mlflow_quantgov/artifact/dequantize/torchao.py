"""torchao's tensor subclasses. See `formats/torchao.py`; layouts that belong to one kernel are not dequantized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Block, Floats, Matrix, slack_of, unreadable
from mlflow_quantgov.artifact.dequantize.numbers import E2M1, E4M3, FLOAT8, floats, lookup, powers_of_two, uniform
from mlflow_quantgov.artifact.dequantize.words import nibbles
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.torchao import Subclass, subclasses
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor


def torchao_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every quantized parameter."""
    found = {one.stem: one for one in subclasses(files)}
    for layer in facts.quantization.layers:
        yield _matrix(layer, found[layer.name])


def _matrix(layer: LayerQuantization, one: Subclass) -> Matrix:
    parts = tuple(tensor.name for tensor in one.parts.values())
    reader, scale = _READERS.get(one.kind), one.parts.get("scale")
    if reader is None or scale is None or len(layer.shape) != 2:
        problem = f"the layout of torchao's {one.kind}"
        return unreadable(f"{layer.name}.weight", layer.shape, one.kind, parts, layer.bits, problem)

    before = one.parts.get("act_pre_scale")
    if before is not None and before.elements not in {1, layer.shape[-1]}:
        return unreadable(
            f"{layer.name}.weight", layer.shape, one.kind, parts, layer.bits, "scales of its inputs that do not fit"
        )

    def read(start: int, stop: int) -> Block:
        block = reader(layer, one, start, stop)
        return block if before is None else _scaled(block, floats(before).reshape(1, -1))

    # Codes are computed in the precision of the model; intx multiplies with a reciprocal that was rounded, too.
    dtype = one.data.get("dtype") or one.data.get("orig_dtype")
    slack = 2.0**-8 if "bfloat16" in str(dtype) else slack_of(scale)
    slack *= 2 if one.kind == "IntxUnpackedToInt8Tensor" else 1
    return Matrix(f"{layer.name}.weight", layer.shape, one.kind, parts, read, layer.bits, layer.group_size, slack)


def _scaled(block: Block, before: Floats) -> Block:
    """Weights as the unscaled inputs meet them, where inputs are multiplied first (`act_pre_scale`)."""
    if not (before > 0).all():
        raise ValueError("inputs are scaled by numbers that are not positive")
    below, above = (None if one is None else one * before for one in (block.below, block.above))
    return replace(block, values=block.values * before, below=below, above=above)


def _integers(layer: LayerQuantization, one: Subclass, start: int, stop: int) -> Block:
    """`weight = (code - zero) * scale`, one code per byte."""
    scale = _per_weight(one.parts["scale"], start, stop, layer)
    zeros = one.parts.get("zero_point")
    offset = -_per_weight(zeros, start, stop, layer) * scale if zeros is not None else np.float32(0)
    half = 2 ** (int(layer.bits) - 1)
    return uniform(np.asarray(one.parts["qdata"].stored()[start:stop]), scale, offset, -half, half - 1)


def _int4(layer: LayerQuantization, one: Subclass, start: int, stop: int) -> Block:
    """`weight = code * scale + zero` with signed codes, two per byte; scales and zeros lie as [groups, out]."""
    codes = nibbles(np.asarray(one.parts["qdata"].stored()[start:stop]).view(np.uint8)).astype(np.int16)
    scale = floats(one.parts["scale"], np.s_[:, start:stop]).T
    zero = floats(one.parts["zero_point"], np.s_[:, start:stop]).T
    group = np.arange(layer.shape[-1]) // (layer.group_size or layer.shape[-1])
    return uniform((codes ^ 8) - 8, scale[:, group], zero[:, group], -8, 7)


def _float8(layer: LayerQuantization, one: Subclass, start: int, stop: int) -> Block:
    data = one.parts["qdata"]
    codes = np.asarray(data.raw().reshape(data.shape)[start:stop])
    return lookup(codes, FLOAT8[data.dtype], _per_weight(one.parts["scale"], start, stop, layer))


def _mx(layer: LayerQuantization, one: Subclass, start: int, stop: int) -> Block:
    """float8 or float4 with a power of two per block."""
    data = one.parts["qdata"]
    powers = powers_of_two(_scale_codes(layer, one, start, stop))
    scale = np.repeat(powers, layer.shape[-1] // powers.shape[-1], axis=-1)
    if data.dtype in FLOAT8:
        return lookup(np.asarray(data.raw().reshape(data.shape)[start:stop]), FLOAT8[data.dtype], scale)
    return lookup(nibbles(np.asarray(data.stored()[start:stop]).view(np.uint8)), E2M1, scale)


def _nvfp4(layer: LayerQuantization, one: Subclass, start: int, stop: int) -> Block:
    """float4 with a float8 scale per block, perhaps times one scale of the tensor."""
    scale = E4M3[_scale_codes(layer, one, start, stop)]
    whole = one.parts.get("per_tensor_scale")
    if whole is not None:
        scale = scale * floats(whole).reshape(-1)[0]
    scale = np.repeat(scale, layer.shape[-1] // scale.shape[-1], axis=-1)
    return lookup(nibbles(np.asarray(one.parts["qdata"].stored()[start:stop]).view(np.uint8)), E2M1, scale)


def _scale_codes(layer: LayerQuantization, one: Subclass, start: int, stop: int) -> NDArray[np.uint8]:
    """Stored scales of some rows, one byte per block.

    Swizzled ones lie in tiles of 128 rows and 4 blocks, in which rows 32 apart stand side by side.
    Source: cuBLAS, "1D block scaling factors layout"; `to_blocked` of torchao.
    """
    scales, groups = one.parts["scale"], layer.shape[-1] // (layer.group_size or layer.shape[-1])
    if one.data.get("is_swizzled_scales") is not True:
        return np.asarray(scales.raw().reshape(layer.shape[0], -1)[start:stop])
    tiles = scales.raw().reshape(-1, -(-groups // 4), 32, 4, 4)
    row, block = np.arange(start, stop)[:, None], np.arange(groups)
    return np.asarray(tiles[row // 128, block // 4, row % 32, row % 128 // 32, block % 4])


def _per_weight(stored: Tensor, start: int, stop: int, layer: LayerQuantization) -> Floats:
    """Scales or zero points of some rows, broadcastable to [rows, columns]."""
    if stored.elements == 1:
        return floats(stored).reshape(1, 1)
    rows = floats(stored).reshape(-1, 1) if len(stored.shape) == 1 else None
    chosen: Any = rows[start:stop] if rows is not None else floats(stored, slice(start, stop))
    if chosen.shape[1] == 1:
        return np.asarray(chosen, dtype=np.float32)
    return np.repeat(chosen, layer.shape[-1] // chosen.shape[1], axis=1)


_READERS: dict[str, Callable[[LayerQuantization, Subclass, int, int], Block]] = {
    "Int8Tensor": _integers,
    "IntxUnpackedToInt8Tensor": _integers,
    "Int4Tensor": _int4,
    "Float8Tensor": _float8,
    "MXTensor": _mx,
    "NVFP4Tensor": _nvfp4,
}

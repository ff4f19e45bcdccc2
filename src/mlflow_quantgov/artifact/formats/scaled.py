"""Narrow floats with scales beside them: float8, and two 4-bit floats per byte.

Source: transformers' integrations/finegrained_fp8.py and fbgemm_fp8.py (float8 with scales per block, channel or
tensor), modelopt's export/quant_utils.py (NVFP4: groups of 16 with float8 scales and one float32 over them), and the
OCP Microscaling specification (MXFP8, MXFP4: groups of 32 with power-of-two scales, which are stored as bytes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from mlflow_quantgov.artifact.formats.assemble import broken_layer
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import LayerQuantization
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor

FLOAT8 = {"F8_E4M3": "e4m3", "F8_E5M2": "e5m2"}
_BYTES = {"U8", "I8"}
_POWERS = {"F8_E8M0", "U8"}
_SCALES = ("weight_scale_inv", "weight_scale", "scale", "qscale_weight")
"""After the module's name; transformers, vLLM, DeepSeek-V4 and Mistral spell it differently."""
_STACKED = ("_scale_inv", "_scale")
"""After the name of a parameter that is not called `weight` (a stack of experts)."""
_BESIDE = ("weight_scale_2", "input_scale", "input_scale_inv", "input_scale_ub", "activation_scale", "qscale_act",
           "pre_quant_scale")  # fmt: skip
ACTIVATION_SCALES = (".input_scale", ".input_scale_inv", ".activation_scale", ".qscale_act")
CACHE_SCALES = (".k_scale", ".v_scale", ".kv_scale", ".q_scale", ".prob_scale")
CACHE_ZEROS = (".k_zero_point", ".v_zero_point", ".q_zero_point")


@dataclass(frozen=True)
class Scaled:
    """One stored matrix and the tensors beside it."""

    name: str
    """Parameter as stored, `.weight` included."""
    weight: Tensor
    scale: Tensor | None
    beside: tuple[str, ...]
    """Names of the other tensors that belong to it."""

    @property
    def stem(self) -> str:
        """Name of the module, or of the parameter where that is not `weight`."""
        return self.name.removesuffix(".weight")


def scaled_matrices(files: ArtifactFiles) -> Iterator[Scaled]:
    """Every matrix of float8 or bytes that has a scale, or that should have one."""
    for name in sorted(files.tensors):
        tensor = files.tensors[name]
        if tensor.dtype not in FLOAT8 and tensor.dtype not in _BYTES:
            continue
        module, _, last = name.rpartition(".")
        named = [f"{module}.{one}" for one in _SCALES] if last == "weight" else [f"{name}{one}" for one in _STACKED]
        scale = next((files.tensors[one] for one in named if one in files.tensors), None)
        is_scale = last.endswith(("scale", "scale_inv", "qscale_weight", "weight_scale_2"))
        if scale is None and (is_scale or len(tensor.shape) < 2 or (tensor.dtype in _BYTES and last != "weight")):
            continue
        beside = [f"{module}.{one}" for one in _BESIDE] if last == "weight" else []
        yield Scaled(name, tensor, scale, tuple(one for one in beside if one in files.tensors))


def is_nvfp4(one: Scaled) -> bool:
    """Whether two 4-bit floats stand in each byte, with a float8 scale for each 16."""
    return one.weight.dtype in _BYTES and one.scale is not None and one.scale.dtype == "F8_E4M3"


def read_scaled(
    files: ArtifactFiles, one: Scaled, claimed: tuple[int, int] | None = None
) -> tuple[LayerQuantization, str]:
    """Width, shape and granularity of a matrix.

    Args:
        files: The artifact.
        one: The matrix.
        claimed: Rows and columns of a block by the config, for matrices that are no multiple of it.

    Raises:
        ArtifactError: It has no scale, or one that does not fit it.
    """
    weight, scale = one.weight, one.scale
    if scale is None or not weight.elements or len(weight.shape) < 2 or not scale.elements:
        raise broken_layer(files, one.stem, "float8 (with a scale)")
    if weight.dtype in FLOAT8:
        if scale.dtype not in FLOATS and scale.dtype not in _POWERS:
            raise broken_layer(files, one.stem, "float8")
        size, granularity, rows = _blocks(files, one, scale, claimed)
        return LayerQuantization(one.stem, 8, size, weight.shape, FLOAT8[weight.dtype], rows), granularity
    shape = (*weight.shape[:-1], weight.shape[-1] * 2)
    group = 16 if is_nvfp4(one) else 32
    if (
        scale.dtype not in {"F8_E4M3", *_POWERS}
        or scale.shape[:-1] != shape[:-1]
        or scale.shape[-1] * group != shape[-1]
    ):
        raise broken_layer(files, one.stem, "4-bit float")
    return LayerQuantization(one.stem, 4, group, shape, "nvfp4" if group == 16 else "mxfp4"), "group"


def _blocks(
    files: ArtifactFiles, one: Scaled, scale: Tensor, claimed: tuple[int, int] | None
) -> tuple[int | None, str, int]:
    """Weights of a row that share a scale, the granularity, and the rows that do; blocks of both count as groups."""
    shape = one.weight.shape
    sides = block_sides(shape, scale, claimed)
    if sides is None:
        raise broken_layer(files, one.stem, "float8")
    if sides == shape[-2:]:
        return None, "tensor", 1
    if sides in {(1, shape[-1]), (shape[-2], 1)}:
        return None, "channel", 1
    return min(sides[1], shape[-1]), "group", min(sides[0], shape[-2])


def block_sides(
    shape: tuple[int, ...], scale: Tensor, claimed: tuple[int, int] | None = None
) -> tuple[int, int] | None:
    """Rows and columns of a block that shares a scale; None where the scales do not fit the matrix.

    Args:
        shape: Of the matrix, or of a stack of them.
        scale: Its scales: one, one per matrix, per row, per column, or per block.
        claimed: Rows and columns of a block by the config, for matrices that are no multiple of it.
    """
    stack, rows, columns = shape[:-2], shape[-2], shape[-1]
    if scale.elements == 1 or (stack and scale.elements == prod(stack)):
        return rows, columns
    # One scale for each row, the last side left out.
    if scale.shape == shape[:-1] or (not stack and scale.elements == rows and len(scale.shape) == 1):
        return 1, columns
    if len(scale.shape) != len(shape) or scale.shape[:-2] != stack:
        return None
    down, across = scale.shape[-2:]
    if not 0 < down <= rows or not 0 < across <= columns:
        return None
    if (down, across) in {(rows, 1), (1, columns)}:
        return -(-rows // down), -(-columns // across)
    high = _side(rows, down, claimed[0] if claimed else None)
    wide = _side(columns, across, claimed[1] if claimed else None)
    return (high, wide) if -(-rows // high) == down and -(-columns // wide) == across else None


def _side(whole: int, parts: int, claimed: int | None) -> int:
    """Side of a block: the claimed one where it gives so many parts, else a power of two, else equal parts."""
    candidates = [claimed or 0, *(2**power for power in range(4, 13)), -(-whole // parts)]
    return next((side for side in candidates if side > 0 and -(-whole // side) == parts), -(-whole // parts))

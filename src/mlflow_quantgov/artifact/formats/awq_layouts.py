"""How AWQ stores a matrix: four layouts, told apart by shapes and storage types.

- GEMM, packed along the output: `qweight` [in, out * bits / 32], `qzeros` [groups, out * bits / 32], `scales`
  [groups, out].
- GEMV, packed along the input: `qweight` [out, in / 8], `qzeros` [out, padded groups / 8], `scales` [out, padded groups].
- GEMV-fast: `qweight` int16 [out / 4, in], `qzeros` (floats, already scaled) and `scales` [padded groups, out].
- Marlin: `qweight` [in / 16, out * 2], `scales` [groups, out], no zero points.

Source: WQLinear_GEMM, WQLinear_GEMV, WQLinear_GEMVFast and WQLinear_Marlin of AutoAWQ 0.2.9. All but GEMM are 4 bit.
GEMV pads its groups with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import broken_layer
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.packing import constant_words
from mlflow_quantgov.artifact.quantization import LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor

PARTS = ("qweight", "qzeros", "scales")
_WORD = 32
_FLOATS = {"F16", "BF16"}


@dataclass(frozen=True)
class _Parts:
    stem: str
    weight: Tensor
    zeros: Tensor | None
    scales: Tensor


def is_output_packed(files: ArtifactFiles, stem: str) -> bool:
    """Whether a matrix is packed along its output (GEMM): as many columns as its zero points."""
    one = _parts(files, stem)
    if one is None:
        return False
    weight, zeros, scales = one.weight.shape, one.zeros.shape if one.zeros else None, one.scales.shape
    same = zeros is None or (len(zeros) == 2 and zeros[1] == weight[1] and zeros[0] == scales[0])
    return same and weight[1] < scales[1] and not _is_gemv(one)


def layout_of(files: ArtifactFiles, stem: str) -> str | None:
    """`gemm`, `gemv`, `gemv_fast` or `marlin`; None for anything else."""
    one = _parts(files, stem)
    if one is None:
        return None
    if _is_gemv(one):
        return "gemv"
    if is_output_packed(files, stem):
        return "gemm"
    if one.weight.dtype == "I16" and one.zeros is not None and one.zeros.dtype in _FLOATS:
        return "gemv_fast"
    return "marlin" if one.zeros is None and one.weight.shape[1] == 2 * one.scales.shape[1] else None


def read_layer(files: ArtifactFiles, stem: str) -> LayerQuantization:
    """One matrix; its `type` names the layout.

    Raises:
        ArtifactError: It is of no known layout, or its tensors do not fit each other.
    """
    layout, one = layout_of(files, stem), _parts(files, stem)
    if layout is None or one is None or not one.weight.elements or not one.scales.elements:
        raise broken_layer(files, stem, "AWQ")
    found = {"gemm": _gemm, "gemv": _gemv, "gemv_fast": _gemv_fast, "marlin": _marlin}[layout](one)
    if found is None:
        raise broken_layer(files, stem, f"AWQ {layout.upper()}")
    bits, groups, shape = found
    if not groups or min(shape) <= 0 or shape[1] % groups:
        raise broken_layer(files, stem, f"AWQ {layout.upper()}")
    return LayerQuantization(stem, bits, shape[1] // groups if groups > 1 else None, shape, layout)


def is_centred(files: ArtifactFiles, layer: LayerQuantization) -> bool:
    """Whether every zero point is the middle of the range (or none is stored)."""
    one = _parts(files, layer.name)
    if one is None or one.zeros is None:
        return True
    middle, zeros = 2 ** (int(layer.bits) - 1), np.asarray(one.zeros.stored())
    if layer.type == "gemm":
        return np.array_equal(zeros, constant_words(middle, int(layer.bits), zeros))
    groups = layer.shape[1] // layer.group_size if layer.group_size else 1
    if layer.type == "gemv":
        codes = (zeros.view("<u4")[:, :, None] >> np.arange(0, _WORD, 4, dtype=np.uint32)) & 15
        return bool(np.all(codes.reshape(len(zeros), -1)[:, :groups] == middle))
    expected = -(np.asarray(one.scales.values())[:groups].astype(np.float32) * middle)
    return bool(np.all(np.asarray(one.zeros.values())[:groups].astype(np.float32) == expected))


def _parts(files: ArtifactFiles, stem: str) -> _Parts | None:
    weight, zeros, scales = (files.tensors.get(f"{stem}.{part}") for part in PARTS)
    if weight is None or scales is None or not len(weight.shape) == len(scales.shape) == 2:
        return None
    return _Parts(stem, weight, zeros, scales) if zeros is None or len(zeros.shape) == 2 else None


def _is_gemv(one: _Parts) -> bool:
    """As many rows as scales and zero points have, and eight scales for each word of zero points."""
    return (
        one.zeros is not None
        and one.weight.dtype == one.zeros.dtype == "I32"
        and one.weight.shape[0] == one.zeros.shape[0] == one.scales.shape[0]
        and one.scales.shape[1] == 8 * one.zeros.shape[1]
        and one.weight.shape[1] > one.zeros.shape[1]
    )


def _gemm(one: _Parts) -> tuple[int, int, tuple[int, int]] | None:
    groups, out_features = one.scales.shape
    bits, rest = divmod(one.weight.shape[1] * _WORD, out_features)
    if one.weight.dtype != "I32" or rest or bits not in {2, 4, 8}:
        return None
    return bits, groups, (out_features, one.weight.shape[0])


def _gemv(one: _Parts) -> tuple[int, int, tuple[int, int]] | None:
    if one.scales.dtype not in _FLOATS:
        return None
    groups = _filled(one.scales, 0)
    return 4, groups, (one.weight.shape[0], one.weight.shape[1] * 8)


def _gemv_fast(one: _Parts) -> tuple[int, int, tuple[int, int]] | None:
    if one.scales.dtype not in _FLOATS or one.zeros is None or one.zeros.shape != one.scales.shape:
        return None
    groups, out_features = _filled(one.scales, 1), one.scales.shape[1]
    if one.weight.shape[0] * 4 != out_features:
        return None
    return 4, groups, (out_features, one.weight.shape[1])


def _marlin(one: _Parts) -> tuple[int, int, tuple[int, int]] | None:
    groups, out_features = one.scales.shape
    return (4, groups, (out_features, one.weight.shape[0] * 16)) if one.weight.dtype == "I32" else None


def _filled(scales: Tensor, axis: int) -> int:
    """Number of groups before the padding: no scale of a real group is zero in all rows."""
    used = np.flatnonzero(np.any(np.asarray(scales.stored()) != 0, axis=axis))
    return int(used[-1]) + 1 if used.size else 0

"""HQQ, as its `save_to_safetensors` and transformers write it: `W_q`, `scale`, `zero`, and each setting as a tensor.

The matrix is cut into groups, [numel / group, group] (axis 1) or [group, numel / group] (axis 0), and packed along the
first side: into bytes for 1, 2, 4 and 8 bit (5 and 6 take a byte each, 1.58 two bits), ten codes of 3 bit into 32.
Source: hqq/core/quantize.py and bitpack.py.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble, broken_layer
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor

PARTS = ("W_q", "scale", "zero", "shape", "nbits", "group_size", "axis", "packing", "unpack_view_dtype", "view_as_float",
         "quant_scale", "quant_zero", "compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config",
         "channel_wise", "optimize", "round_zero")  # fmt: skip
"""Tensors of one matrix."""
_WIDTHS = {"8bit_u8": 8, "4bit_u8": 4, "3bit_32": 3, "2bit_u8": 2, "1bit_u8": 1}
_LONGEST_TEXT = 100
_SAMPLED_BYTES = 1 << 22


class Hqq(Format):
    """Reads the settings from tensors, and checks them against the number of stored bytes and the codes in use."""

    name = "hqq"

    def detect(self, files: ArtifactFiles) -> bool:
        """Packed codes under HQQ's name."""
        return any(name.endswith(".W_q") for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers, centred = Layers(), []
        for name in sorted(files.tensors):
            if name.endswith(".W_q"):
                stem = name.removesuffix(".W_q")
                layer, granularity = _layer(files, stem)
                used = [f"{stem}.{part}" for part in PARTS if f"{stem}.{part}" in files.tensors]
                layers.add(layer, used, granularity)
                zero = files.tensors[f"{stem}.zero"]
                centred.append(bool(np.all(np.asarray(zero.values()) == 2 ** (int(layer.bits) - 1))))
        return assemble(
            files,
            layers,
            format=self.name,
            method="hqq",
            symmetric=all(centred),
            producer=None,
            calibration_required=False,
            claims=_claims(files),
        )


def _layer(files: ArtifactFiles, stem: str) -> tuple[LayerQuantization, str]:
    codes, scale, zero = (files.tensors.get(f"{stem}.{part}") for part in ("W_q", "scale", "zero"))
    if number_of(files, stem, "quant_scale") or number_of(files, stem, "quant_zero"):
        raise broken_layer(files, stem, "HQQ (its scales are quantized again, which safetensors never held)")
    sides = files.tensors.get(f"{stem}.shape")
    known = codes is not None and scale is not None and zero is not None and sides is not None
    if not known or codes is None or scale is None or zero is None or sides is None:
        raise broken_layer(files, stem, "HQQ")
    if sides.dtype != "I64" or not 2 <= sides.elements <= 4 or scale.dtype not in FLOATS or zero.dtype not in FLOATS:
        raise broken_layer(files, stem, "HQQ")
    shape = tuple(int(side) for side in np.asarray(sides.values()).reshape(-1))
    if min(shape) <= 0 or max(shape) >= 2**31:
        raise broken_layer(files, stem, "HQQ")
    whole = number_of(files, stem, "channel_wise") == 0
    group, axis = number_of(files, stem, "group_size"), number_of(files, stem, "axis")
    if axis not in {0, 1} or (not whole and (group is None or group < 1 or prod(shape) % int(group))):
        raise broken_layer(files, stem, "HQQ")
    size = prod(shape) if whole else int(group or 0)
    if scale.elements != prod(shape) // size or zero.elements != scale.elements:
        raise broken_layer(files, stem, "HQQ")
    rows = shape[0] if whole else size if axis == 0 else prod(shape) // size
    bits = _bits(files, stem, codes, rows, prod(shape))
    if whole:
        return LayerQuantization(stem, bits, None, shape, "hqq"), "tensor"
    channel = size == (prod(shape[1:]) if axis == 1 else shape[0])
    return LayerQuantization(stem, bits, None if channel else size, shape, "hqq"), "channel" if channel else "group"


def _bits(files: ArtifactFiles, stem: str, codes: Tensor, rows: int, count: int) -> float:
    """Width, from the packing that gives so many bytes; where a byte holds one code, from the codes in use."""
    packing, claimed = text_of(files, stem, "packing"), number_of(files, stem, "nbits")
    width = _WIDTHS.get(packing or "")
    columns = count // rows
    stored = {
        8: count,
        4: rows // 2 * columns,
        3: -(-rows // 10) * 4 * columns,
        2: rows // 4 * columns,
        1: rows // 8 * columns,
    }
    if width is None or stored[width] != codes.size or (width != 3 and rows % (8 // width)):
        raise broken_layer(files, stem, "HQQ")
    if width == 8 and codes.dtype == "U8":
        width = max(int(codes.raw(_SAMPLED_BYTES).max()).bit_length(), 1)
    if claimed is None or (claimed != 1.58 and claimed != width) or (claimed == 1.58 and width != 2):
        spelled = "no width" if claimed is None else f"{claimed:g} bit"
        raise files.contradiction(f"{stem[:100]}.nbits", spelled, f"{width} bit")
    return width


def number_of(files: ArtifactFiles, stem: str, part: str) -> float | None:
    """A setting that is stored as a tensor of one number; None where it is not."""
    tensor = files.tensors.get(f"{stem}.{part}")
    if tensor is None or tensor.elements != 1 or tensor.dtype not in {"U8", "I32", "I64", "F32"}:
        return None
    found = float(np.asarray(tensor.values()).reshape(-1)[0])
    return round(found, 2) if abs(found) < 2**31 else None


def text_of(files: ArtifactFiles, stem: str, part: str) -> str | None:
    """A setting that is stored as bytes; None where it is not."""
    tensor = files.tensors.get(f"{stem}.{part}")
    if tensor is None or tensor.dtype != "U8":
        return None
    return tensor.raw(_LONGEST_TEXT).tobytes().decode("ascii", errors="replace")


def _claims(files: ArtifactFiles) -> Claims:
    """Width and group size of the config where it gives one for all layers."""
    bits: list[tuple[str, float]] = []
    sizes: list[tuple[str, int | None]] = []
    for place, claim in files.claims:
        outer: Any = claim.get("quant_config")
        settings = outer.get("weight_quant_params") if isinstance(outer, dict) else None
        width = settings.get("nbits") if isinstance(settings, dict) else None
        size = settings.get("group_size") if isinstance(settings, dict) else None
        if type(width) is int and 0 < width <= 16:
            bits.append((place, width))
        if isinstance(settings, dict) and settings.get("axis") == 1 and type(size) is int and 0 < size < 2**31:
            sizes.append((place, size))
    return Claims(tuple(bits), tuple(sizes))

"""The 2:4 sparse layouts of compressed-tensors before 0.13: half of the weights are left out, the others quantized.

- sparse-24-bitmask: `compressed` [out, in / 2] holds the kept codes, `bitmask` [out, in / 8] says where they stand, `shape`
  what the matrix is; scales beside them as in the dense layouts.
- marlin-24: `weight_packed` [in / 32, out * bits / 2], `scale_packed` [groups, out] and `meta`, two bits for each kept code.

Source: sparse_compressors/sparse_24_bitmask.py and sparse_quantized_compressors/marlin_24.py of compressed-tensors 0.10.
"""

from __future__ import annotations

from math import prod

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import Layers, broken_layer, used_bits
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import LayerQuantization
from mlflow_quantgov.artifact.tensors import FLOATS
from mlflow_quantgov.errors import UnknownFormatError

SPARSE_PARTS = (".bitmask", ".scale_packed")
"""What tells such a matrix."""
_FLOAT8 = {"F8_E4M3", "F8_E5M2"}


def add_sparse(files: ArtifactFiles, layers: Layers) -> None:
    """Add every sparse matrix.

    Args:
        files: The artifact.
        layers: What was found so far.

    Raises:
        ArtifactError: The tensors of one do not fit each other.
        UnknownFormatError: Weights that are pruned and not quantized.
    """
    for name in sorted(files.tensors):
        if name.endswith(".bitmask"):
            _add_bitmask(files, layers, name.removesuffix(".bitmask"))
        elif name.endswith(".scale_packed"):
            _add_marlin(files, layers, name.removesuffix(".scale_packed"))


def _add_bitmask(files: ArtifactFiles, layers: Layers, stem: str) -> None:
    parts = ("bitmask", "compressed", "shape", "weight_scale")
    mask, kept, sides, scale = (files.tensors.get(f"{stem}.{part}") for part in parts)
    if kept is not None and scale is None and kept.dtype in FLOATS:
        raise UnknownFormatError(
            f"{files.root.name} is pruned, not quantized ({stem[:100]}), which is not read yet.",
            why="Half of its weights are zero; what that costs is not what a width says.",
            fix="decompress it with the compressed-tensors that wrote it, and save it again",
        )
    known = mask is not None and kept is not None and sides is not None and scale is not None
    if not known or mask is None or kept is None or sides is None or scale is None:
        raise broken_layer(files, stem, "2:4 sparse")
    if sides.dtype != "I64" or sides.elements != 2 or mask.dtype != "U8" or len(kept.shape) != 2:
        raise broken_layer(files, stem, "2:4 sparse")
    rows, columns = (int(side) for side in np.asarray(sides.values()).reshape(-1))
    if kept.shape != (rows, columns // 2) or mask.shape != (rows, -(-columns // 8)) or columns % 4 or not kept.elements:
        raise broken_layer(files, stem, "2:4 sparse")
    if kept.dtype not in _FLOAT8 | {"I8"} or (scale.elements != 1 and scale.elements % rows):
        raise broken_layer(files, stem, "2:4 sparse")
    groups = 1 if scale.elements == 1 else scale.elements // rows
    if not groups or columns % groups:
        raise broken_layer(files, stem, "2:4 sparse")
    bits = 8 if kept.dtype in _FLOAT8 else used_bits(kept, rows=rows if scale.elements == 1 else 32)
    kind = f"{'float8' if kept.dtype in _FLOAT8 else 'int'}, 2:4"
    layer = LayerQuantization(stem, bits, columns // groups if groups > 1 else None, (rows, columns), kind)
    beside = (*parts, "weight_zero_point", "input_scale", "input_zero_point")
    used = [f"{stem}.{part}" for part in beside if f"{stem}.{part}" in files.tensors]
    layers.add(layer, used, "tensor" if scale.elements == 1 else None)


def _add_marlin(files: ArtifactFiles, layers: Layers, stem: str) -> None:
    scale, packed, meta = (files.tensors.get(f"{stem}.{part}") for part in ("scale_packed", "weight_packed", "meta"))
    known = scale is not None and packed is not None and meta is not None
    if not known or scale is None or packed is None or meta is None:
        raise broken_layer(files, stem, "marlin-24")
    if len(scale.shape) != 2 or len(packed.shape) != 2 or packed.dtype != "I32" or meta.dtype != "I16":
        raise broken_layer(files, stem, "marlin-24")
    (groups, rows), columns = scale.shape, packed.shape[0] * 32
    bits, rest = divmod(packed.shape[1] * 2, rows) if rows else (0, 1)
    if rest or bits not in {4, 8} or not groups or columns % groups or meta.elements * 16 != prod((rows, columns)):
        raise broken_layer(files, stem, "marlin-24")
    layer = LayerQuantization(stem, bits, columns // groups if groups > 1 else None, (rows, columns), "marlin-24")
    layers.add(layer, [scale.name, packed.name, meta.name])

"""MXFP4 as gpt-oss has it: stacks of experts as `*_blocks` and `*_scales`.

`X_blocks` is [experts, out, groups, 16]: two 4-bit floats per byte, 32 weights per group; `X_scales` [experts, out,
groups] holds the exponent of each group. Full-precision checkpoints store X the other way round, [experts, in, out].
Source: `convert_moe_packed_tensors` in transformers' integrations/mxfp4.py.
"""

from __future__ import annotations

from math import prod

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble, broken_layer
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization

_GROUP_BYTES = 16


class Mxfp4(Format):
    """Reads shapes from the blocks and checks the scales against them."""

    name = "mxfp4"

    def detect(self, files: ArtifactFiles) -> bool:
        """Blocks of bytes with their exponents."""
        return any(
            name.endswith("_blocks")
            and tensor.dtype == "U8"
            and f"{name.removesuffix('_blocks')}_scales" in files.tensors
            for name, tensor in files.tensors.items()
        )

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers = Layers()
        for name in sorted(files.tensors):
            if name.endswith("_blocks"):
                layer = _layer(files, name.removesuffix("_blocks"))
                shape = layer.shape
                parent = (*shape[:-2], shape[-1], shape[-2]) if len(shape) > 2 else shape
                layers.add(layer, [name, f"{layer.name}_scales"], "group", (layer.name, parent))
        return assemble(
            files,
            layers,
            format=self.name,
            method="mxfp4",
            symmetric=True,
            producer=None,
            # Rounded, or trained that way; either needs no sample of texts.
            calibration_required=False,
            claims=Claims.of(files, ("bits",), ("group_size",)),
        )


def _layer(files: ArtifactFiles, stem: str) -> LayerQuantization:
    blocks, scales = files.tensors[f"{stem}_blocks"], files.tensors.get(f"{stem}_scales")
    sound = scales is not None and blocks.dtype == "U8" and scales.dtype in {"U8", "F8_E8M0"}
    if not sound or scales is None or len(blocks.shape) < 3 or not prod(blocks.shape):
        raise broken_layer(files, stem, "MXFP4")
    if blocks.shape[-1] != _GROUP_BYTES or scales.shape != blocks.shape[:-1]:
        raise broken_layer(files, stem, "MXFP4")
    shape = (*blocks.shape[:-2], blocks.shape[-2] * 2 * _GROUP_BYTES)
    return LayerQuantization(stem, 4, 2 * _GROUP_BYTES, shape, "mxfp4")

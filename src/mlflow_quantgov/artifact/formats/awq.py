"""AWQ, as AutoAWQ writes it for GEMM kernels: `qweight`, `qzeros`, `scales`, packed along the output.

`qweight` is [in, out * bits / 32], `qzeros` [groups, out * bits / 32], `scales` [groups, out].
Source: AutoAWQ's WQLinear_GEMM.
"""

from __future__ import annotations

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble, broken_layer
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.packing import constant_words
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.errors import UnknownFormatError

_WORD = 32
_LAYOUTS = {"gemm", "none", ""}


class Awq(Format):
    """Reads width and group size from shapes, symmetry from the zero points."""

    name = "awq"

    def detect(self, files: ArtifactFiles) -> bool:
        """A matrix packed along its output: as many columns as its zero points; or any packed one that says AWQ."""
        packed = [name.removesuffix(".qweight") for name in files.tensors if name.endswith(".qweight")]
        return any(_is_output_packed(files, stem) for stem in packed) or (
            bool(packed) and files.claimed_method == "awq"
        )

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        for _, claim in files.claims:
            layout = str(claim.get("version") or claim.get("format") or "").lower()
            if layout not in _LAYOUTS:
                raise _other_layout(files, layout)
        layers, centred = Layers(), []
        for name in sorted(files.tensors):
            if name.endswith(".qweight"):
                stem = name.removesuffix(".qweight")
                layer = _read_layer(files, stem)
                parts = [
                    f"{stem}.{part}" for part in ("qweight", "qzeros", "scales") if f"{stem}.{part}" in files.tensors
                ]
                layers.add(layer, parts)
                centred.append(_is_centred(files, layer))
        return assemble(
            files,
            layers,
            format=self.name,
            method="awq",
            symmetric=all(centred),
            producer=next((str(claim["producer"]) for _, claim in files.claims if claim.get("producer")), None),
            calibration_required=True,
            claims=Claims.of(files, ("bits", "w_bit"), ("group_size", "q_group_size")),
        )


def _is_output_packed(files: ArtifactFiles, stem: str) -> bool:
    weight, zeros = files.tensors.get(f"{stem}.qweight"), files.tensors.get(f"{stem}.qzeros")
    scales = files.tensors.get(f"{stem}.scales")
    if weight is None or scales is None or not len(weight.shape) == len(scales.shape) == 2:
        return False
    same = zeros is None or (
        len(zeros.shape) == 2 and zeros.shape[1] == weight.shape[1] and zeros.shape[0] == scales.shape[0]
    )
    return same and weight.shape[1] < scales.shape[1]


def _read_layer(files: ArtifactFiles, stem: str) -> LayerQuantization:
    if not _is_output_packed(files, stem):
        raise broken_layer(files, stem, "AWQ GEMM")
    weight, scales = files.tensors[f"{stem}.qweight"], files.tensors[f"{stem}.scales"]
    groups, out_features = scales.shape
    in_features = weight.shape[0]
    bits, rest = divmod(weight.shape[1] * _WORD, out_features)
    if weight.dtype != "I32" or rest or bits not in {2, 4, 8} or not groups or not in_features or in_features % groups:
        raise broken_layer(files, stem, "AWQ GEMM")
    return LayerQuantization(
        stem, bits, in_features // groups if groups > 1 else None, (out_features, in_features), "gemm"
    )


def _is_centred(files: ArtifactFiles, layer: LayerQuantization) -> bool:
    """Whether every zero point is the middle of the range (or none is stored)."""
    zeros = files.tensors.get(f"{layer.name}.qzeros")
    if zeros is None:
        return True
    bits, stored = int(layer.bits), np.asarray(zeros.stored())
    return np.array_equal(stored, constant_words(2 ** (bits - 1), bits, stored))


def _other_layout(files: ArtifactFiles, layout: str) -> UnknownFormatError:
    return UnknownFormatError(
        f"{files.root.name} is AWQ in the layout {layout!r}, which is not read yet.",
        why="Its bits cannot be told from its bytes, so nothing about it would be certain.",
        fix="quantize it with version='gemm'",
    )

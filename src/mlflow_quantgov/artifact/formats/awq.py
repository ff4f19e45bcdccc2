"""AWQ, as AutoAWQ writes it: `qweight`, `qzeros`, `scales`, in the layout of one kernel (see `awq_layouts`)."""

from __future__ import annotations

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble
from mlflow_quantgov.artifact.formats.awq_layouts import PARTS, is_centred, is_output_packed, layout_of, read_layer
from mlflow_quantgov.artifact.formats.gptq import producer_of
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.errors import UnknownFormatError

_LAYOUTS = {
    "": None, "none": None, "gemm": "gemm", "exllama": "gemm", "exllamav2": "gemm", "ipex": "gemm", "gemv": "gemv",
    "gemv_fast": "gemv_fast", "marlin": "marlin",
}  # fmt: skip
"""`version` of a config to the layout that it means; kernels for other machines share GEMM's."""


class Awq(Format):
    """Reads width and group size from shapes, symmetry from the zero points."""

    name = "awq"

    def detect(self, files: ArtifactFiles) -> bool:
        """A matrix packed along its output, or in a layout of GEMV; or any packed one that says AWQ."""
        packed = [name.removesuffix(".qweight") for name in files.tensors if name.endswith(".qweight")]
        return any(
            is_output_packed(files, stem) or layout_of(files, stem) in {"gemv", "gemv_fast"} for stem in packed
        ) or (bool(packed) and files.claimed_method == "awq")

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers, centred = Layers(), []
        for name in sorted(files.tensors):
            if name.endswith(".qweight"):
                stem = name.removesuffix(".qweight")
                layer = read_layer(files, stem)
                layers.add(layer, [f"{stem}.{part}" for part in PARTS if f"{stem}.{part}" in files.tensors])
                centred.append(is_centred(files, layer))
        _check_layout(files, {str(layer.type) for layer in layers.found})
        for place, claim in files.claims:
            if claim.get("zero_point") is False and not all(centred):
                raise files.contradiction(place, "no zero points (zero_point false)", "zero points off the middle")
        return assemble(
            files,
            layers,
            format=self.name,
            method="awq",
            symmetric=all(centred),
            producer=next((str(claim["producer"]) for _, claim in files.claims if claim.get("producer")), None)
            or producer_of(files),
            calibration_required=True,
            claims=Claims.of(files, ("bits", "w_bit"), ("group_size", "q_group_size")),
        )


def _check_layout(files: ArtifactFiles, found: set[str]) -> None:
    """Refuse a config that names another layout: its kernel would read the codes in the wrong order."""
    for place, claim in files.claims:
        claimed = str(claim.get("version") or claim.get("format") or "").lower()
        if claimed not in _LAYOUTS:
            raise UnknownFormatError(
                f"{files.root.name} is AWQ in the layout {claimed[:100]!r}, which is not known here.",
                why="In which order its codes stand cannot be told, so nothing about it would be certain.",
                fix="quantize it with version='gemm'",
            )
        layout = _LAYOUTS[claimed]
        if layout is not None and found != {layout}:
            raise files.contradiction(place, f"the AWQ layout {layout}", f"the layout {' and '.join(sorted(found))}")

"""AWQ, as AutoAWQ writes it: `qweight`, `qzeros`, `scales`, without an index."""

from __future__ import annotations

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format, Layers, assemble
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.errors import ArtifactError

WORD = 32


class Awq(Format):
    """GEMM packs along the output: `qweight` [in, out * bits / 32], `qzeros` [groups, out * bits / 32]."""

    name = "awq"

    def detect(self, files: ArtifactFiles) -> bool:
        """A packed matrix without `g_idx`."""
        return files.claimed_method in {None, "awq"} and any(
            name.endswith(".qweight") and name.replace(".qweight", ".g_idx") not in files.tensors
            for name in files.tensors
        )

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers = Layers()
        for name in sorted(files.tensors):
            if name.endswith(".qweight"):
                layers.add(*self._layer(files, name.removesuffix(".qweight")))
        config = files.quantization_config
        return assemble(
            files,
            layers,
            format="awq",
            method="awq",
            # AWQ's GEMM kernels subtract a stored zero point; without `qzeros` there is none.
            symmetric=not any(f"{layer.name}.qzeros" in files.tensors for layer in layers.found),
            producer=str(config["producer"]) if config.get("producer") else None,
            calibration_required=True,
            claimed_bits=config.get("bits", config.get("w_bit")),
        )

    def _layer(self, files: ArtifactFiles, stem: str) -> tuple[LayerQuantization, str, str, str]:
        names = (f"{stem}.qweight", f"{stem}.qzeros", f"{stem}.scales")
        try:
            weight, scales = files.tensors[names[0]], files.tensors[names[2]]
            groups, out_features = scales.shape
            in_features = weight.shape[0]
            bits, rest = divmod(weight.shape[1] * WORD, out_features)
            if rest or bits not in {4, 8} or in_features % groups:
                raise IndexError
        except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            raise ArtifactError(
                f"The layer {stem} of {files.root.name} is no sound AWQ GEMM layer.",
                why="Width and group size are read from the shapes of qweight and scales.",
                fix="quantize it again, in the GEMM layout",
            ) from error
        group_size = None if groups == 1 else in_features // groups
        return LayerQuantization(stem, bits, group_size, (out_features, in_features), "awq-gemm"), *names

"""Reads ternary artifacts: facts from the tensors, never from the config."""

from mlflow_quantgov.artifact.formats.assemble import Layers, assemble
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization


class Ternary(Format):
    """One matrix of trits, one scale per row."""

    name = "ternary"

    def detect(self, files: ArtifactFiles) -> bool:
        """By the tensors: a config may say anything."""
        return any(name.endswith(".trits") for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """Width, granularity and shape of every matrix."""
        layers = Layers()
        for name, tensor in sorted(files.tensors.items()):
            if name.endswith(".trits"):
                stem = name.removesuffix(".trits")
                scale = f"{stem}.scale"
                if scale not in files.tensors or files.tensors[scale].shape != tensor.shape[:1]:
                    raise files.contradiction("The layout", "one scale per row", f"none that fits {name}")
                layers.add(LayerQuantization(stem, 2, None, tensor.shape), [name, scale], "channel")
        return assemble(
            files,
            layers,
            format=self.name,
            method=None,
            symmetric=True,
            producer=None,
            calibration_required=False,
        )

"""What a reader gets, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.tensors import GgufFile, OnnxFile, OpenVinoFile, Tensor
from mlflow_quantgov.errors import ArtifactError

SIDE_CONFIGS = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json")
"""Where older tools wrote what newer ones put into config.json; some write both."""
NOTES = ("adapter_config.json", "quanto_qmap.json")
"""Other small JSON files that readers look into."""
GRAPH_CONFIGS = ("genai_config.json", "openvino_config.json", "adapter_config.json")
"""Beside ONNX and OpenVINO graphs."""


@dataclass(frozen=True)
class ArtifactFiles:
    """Headers of everything in a model folder."""

    root: Path
    config: dict[str, Any]
    """`config.json`, or empty."""
    tensors: dict[str, Tensor]
    """Of the safetensors files that a loader reads."""
    metadata: dict[str, str]
    """Header texts of those files."""
    size_bytes: int
    """Of all files."""
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Other small JSON files by name (those of `SIDE_CONFIGS` and `NOTES`); empty where not there."""
    ggufs: tuple[GgufFile, ...] = ()
    """The GGUF file, or the parts of a split one in order."""
    onnx: OnnxFile | None = None
    """The ONNX graph, where that is the model."""
    openvino: OpenVinoFile | None = None
    """The OpenVINO graph, where that is the model."""
    warnings: tuple[str, ...] = ()
    """What was noticed about the folder itself."""

    @property
    def read(self) -> frozenset[Path]:
        """The files that hold what was read; whatever else lies in the folder was not looked at."""
        found = {tensor.file for tensor in self.tensors.values()} | {one.path for one in self.ggufs}
        if self.onnx is not None:
            found |= {self.onnx.path, *self.onnx.external}
        if self.openvino is not None:
            found |= {self.openvino.path, self.openvino.weights}
        return frozenset(found)

    @property
    def claims(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every place that says how the model is quantized: file name and what it says."""
        text = self.config.get("text_config")
        for holder in (self.config, text if isinstance(text, dict) else {}):
            for key in ("quantization_config", "compression_config"):
                if isinstance(holder.get(key), dict) and holder[key]:
                    yield "config.json", holder[key]
        for name in SIDE_CONFIGS:
            if self.extra.get(name):
                yield name, self.extra[name]
        own = self.extra.get("openvino_config.json", {}).get("quantization_config")
        if isinstance(own, dict) and own:
            yield "openvino_config.json", own

    @property
    def quantization_config(self) -> dict[str, Any]:
        """The first of the claims, or empty."""
        return next((claim for _, claim in self.claims), {})

    @property
    def claimed_method(self) -> str | None:
        """`quant_method` as the config claims it, in lower case."""
        for _, claim in self.claims:
            method = claim.get("quant_method") or claim.get("method")
            if method:
                return str(method).lower()
        return "modelopt" if self.extra.get("hf_quant_config.json") else None

    def contradiction(self, claimant: str, claimed: object, found: object) -> ArtifactError:
        """The error for a config that says something else than the tensors."""
        return ArtifactError(
            f"{claimant} of {self.root.name} claims {claimed}, its tensors have {found}.",
            why="Facts come from the tensors; a config that disagrees with them is an error, not a preference.",
            fix="quantize it again with the tool that wrote it",
        )


class Format(ABC):
    """Reads one container. Third parties add theirs through the entry-point group `mlflow_quantgov.formats`."""

    name: str
    """As `quantgov inspect` prints it."""

    @property
    def methods(self) -> frozenset[str]:
        """Values of `quant_method` that a config of this container may claim."""
        return frozenset({self.name})

    @abstractmethod
    def detect(self, files: ArtifactFiles) -> bool:
        """Whether the tensors (whatever the config says) are of this container."""

    @abstractmethod
    def read(self, files: ArtifactFiles) -> Inspection:
        """Exact facts from tensors and headers.

        Raises:
            ArtifactError: The tensors contradict each other or the config.
        """

"""`inspect`: what a model artifact is, from tensors and headers alone (no torch, no network, no code execution)."""

from __future__ import annotations

from pathlib import Path

from mlflow_quantgov.artifact.folder import open_artifact
from mlflow_quantgov.artifact.formats.registry import reader_of
from mlflow_quantgov.artifact.quantization import Inspection


def inspect(path: str | Path) -> Inspection:
    """Read a model folder, or one `.gguf`, `.safetensors`, `.onnx` or OpenVINO `.xml` file.

    Args:
        path: Folder or file.

    Raises:
        ArtifactError: Nothing there, truncated, contradicting itself, or a pickle.
        UnknownFormatError: A format that no reader knows; its name is given.
    """
    files = open_artifact(Path(path))
    return reader_of(files).read(files)

"""`inspect`: what a model artifact is, from tensors and headers alone (no torch, no network, no code execution)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlflow_quantgov.artifact.calibration_notes import calibration_notes
from mlflow_quantgov.artifact.describe import width_of
from mlflow_quantgov.artifact.folder import open_artifact
from mlflow_quantgov.artifact.formats import adapter
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.registry import reader_of
from mlflow_quantgov.artifact.quantization import Inspection, Quantization
from mlflow_quantgov.errors import ArtifactError


def inspect(path: str | Path) -> Inspection:
    """Read a model folder, or one `.gguf`, `.safetensors`, `.onnx` or OpenVINO `.xml` file.

    An adapter is described as what it is; where its base lies in a local folder, a warning says what that is.

    Args:
        path: Folder or file.

    Raises:
        ArtifactError: Nothing there, truncated, contradicting itself, or a pickle.
        UnknownFormatError: A format that no reader knows; its name is given.
    """
    files = open_artifact(Path(path))
    found = _read(files)
    if found.quantization.format != adapter.NAME:
        return found
    return replace(found, quantization=_with_base(files, found.quantization))


def inspect_model(path: str | Path) -> Inspection:
    """The same for what is to be logged, promoted or compared: an adapter alone is refused, its base not looked at.

    Args:
        path: Folder or file.

    Raises:
        ArtifactError: As for `inspect`, or an adapter, which is no model of its own.
        UnknownFormatError: A format that no reader knows; its name is given.
    """
    files = open_artifact(Path(path))
    found = _read(files)
    if found.quantization.format == adapter.NAME:
        raise adapter.no_model(files)
    return found


def _read(files: ArtifactFiles) -> Inspection:
    """What the reader of its format finds, and what the producer noted about calibration."""
    found = reader_of(files).read(files)
    noted = calibration_notes(files)
    return replace(found, quantization=replace(found.quantization, calibration_data=noted)) if noted else found


def _with_base(files: ArtifactFiles, facts: Quantization) -> Quantization:
    """The facts of an adapter, with a warning that says what its base is, where that lies here."""
    base = adapter.base_of(files)
    try:
        here = base is not None and Path(base).is_dir()
    except (OSError, ValueError):
        here = False
    if base is None or not here:
        return facts
    try:
        found = inspect_model(base).quantization
    except ArtifactError as error:
        text = f"adapter-base: {base} cannot be read: {error.what}"
    else:
        width = ", ".join(filter(None, (found.format, width_of(found))))
        text = f"adapter-base: {base} is {'quantized' if found.is_quantized else 'not quantized'} ({width})"
    return replace(facts, warnings=(*facts.warnings, text))

"""What is written for people around a logged model, and the parent's place beside its quantized version."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas
from mlflow.exceptions import MlflowException

from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.errors import LineageError
from mlflow_quantgov.evidence.calibration_data import CalibrationData
from mlflow_quantgov.flavor.download import LocalModel
from mlflow_quantgov.flavor.prepare import Prepared


def log_facts(model_id: str, quantization: Quantization, calibration: CalibrationData | None) -> None:
    """Log what people compare as metrics of the LoggedModel, and calibration data as a dataset of the run.

    Metrics need a run; without an active one they are left out, since inventing a run would clutter the experiment.
    """
    run = mlflow.active_run()
    if run is None:
        return
    mlflow.log_metric("bits_per_weight", quantization.bits_per_weight, model_id=model_id)
    mlflow.log_metric("size_bytes", float(quantization.size_bytes), model_id=model_id)
    if calibration is not None:
        from mlflow.data.pandas_dataset import from_pandas

        from mlflow_quantgov.evidence.measure.documents import read_documents

        texts = pandas.DataFrame({"text": read_documents(Path(calibration.data))})
        mlflow.log_input(from_pandas(texts, name="calibration"), context="calibration")


def summary_of(quantization: Quantization) -> str:
    """One line for a version's description; begins with plain text, since the versions table shows it raw."""
    if not quantization.is_quantized:
        return f"Full-precision parent ({quantization.dtype or quantization.format})."
    width = f"{quantization.bits:g} bit" if quantization.bits is not None else "quantized"
    method = quantization.method if quantization.method != quantization.format else None
    return f"{width} {' '.join(filter(None, (quantization.format, method)))}, {quantization.bits_per_weight:.2f} bits per weight."


def describe_version(name: str, version: str, prepared: Prepared) -> None:
    """Write the version's description: what it is, and whose descendant."""
    text = summary_of(prepared.inspection.quantization)
    if prepared.parent is not None:
        text += f" Parent: {prepared.parent.uri}."
    mlflow.MlflowClient().update_model_version(name, version, description=text)


def ensure_parent_version(name: str, parent: LocalModel) -> str:
    """Make the parent a version of the registered model too, unless it is one, and return the version.

    An alias can only point to a version of its own registered model; rollback moves it to this one.

    Raises:
        LineageError: The parent's version could not be created.
    """
    client = mlflow.MlflowClient()
    source = parent.version.source if parent.version is not None else parent.uri
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.source == source:
            return str(version.version)
    try:
        created = client.create_model_version(
            name,
            source=str(source),
            run_id=parent.version.run_id if parent.version is not None else None,
            model_id=parent.model_id,
            description=f"Full-precision parent, from {parent.uri}; what rollback returns to.",
        )
    except MlflowException as error:
        raise LineageError(
            f"The parent {parent.uri} could not be made a version of {name}: {error.message}",
            why="An alias can only be moved back to a version of the same registered model. The quantized version is "
            "registered all the same.",
            fix=f"quantgov log-parent PATH --name parent --register {name}",
        ) from error
    return str(created.version)

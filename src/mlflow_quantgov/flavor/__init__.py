"""The MLflow flavor `quantgov`: save_model, log_model, load_model, _load_pyfunc, and default environments."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow import pyfunc
from mlflow.models import Model, ModelInputExample, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME, ModelInfo
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from mlflow_quantgov.artifact.manifest import Manifest, copy_with_manifest
from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import ArtifactError, TamperingError
from mlflow_quantgov.evidence import metrics
from mlflow_quantgov.evidence.calibration_data import CalibrationData
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.store import write_copy
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.flavor import layout
from mlflow_quantgov.flavor.approved import approved_manifest
from mlflow_quantgov.flavor.download import cache_folder, local_model
from mlflow_quantgov.flavor.environment import (
    check_environment,
    conda_environment,
    default_requirements,
    write_environment,
)
from mlflow_quantgov.flavor.generation import DEFAULT_MAX_TOKENS, GenerationModel
from mlflow_quantgov.flavor.prepare import Prepared, prepared_model
from mlflow_quantgov.flavor.registration import (
    check_names,
    describe_version,
    ensure_parent_version,
    facts_as_params,
)
from mlflow_quantgov.version import __version__

FLAVOR_NAME = "quantgov"


def get_default_pip_requirements(runtime: str | None = None) -> list[str]:
    """Pinned requirements of models saved by this flavor.

    Args:
        runtime: Name of the runtime as targets spell it; None for what every model needs.
    """
    return default_requirements(runtime)


def get_default_conda_env(runtime: str | None = None) -> dict[str, Any]:
    """The conda environment that installs `get_default_pip_requirements`."""
    return conda_environment(default_requirements(runtime))


def save_model(
    model: Any,
    path: str | Path,
    parent: str | None = None,
    target: str | Path | Target | None = None,
    calibration: CalibrationData | None = None,
    conda_env: dict[str, Any] | str | None = None,
    code_paths: list[str] | None = None,
    mlflow_model: Model | None = None,
    signature: ModelSignature | None = None,
    input_example: ModelInputExample | None = None,
    pip_requirements: Sequence[str] | str | None = None,
    extra_pip_requirements: Sequence[str] | str | None = None,
    metadata: dict[str, Any] | None = None,
    recipe: Recipe | str | Path | None = None,
) -> None:
    """Save a parent or a quantized model, byte for byte, with its manifest, quantization and lineage.

    Args:
        model: A folder, a `.gguf` or `.onnx` file, or a loaded transformers, GPTQModel, AutoGPTQ, AutoAWQ or optimum
            object.
        path: Folder to create.
        parent: URI of the full-precision parent; required for a quantized model, None for a parent.
        target: Name or path of the deployment that it is meant for.
        calibration: The data that the quantizer saw, and a sample of production.
        conda_env: As in MLflow's own flavors.
        code_paths: As in MLflow's own flavors. A version that brings code reaches no gated destination: the code would run
            in place of installed packages, and was not measured.
        mlflow_model: The MLflow model that this flavor is added to.
        signature: Default: texts in, texts out, with `max_tokens` and `chat`.
        input_example: As in MLflow's own flavors.
        pip_requirements: As in MLflow's own flavors.
        extra_pip_requirements: As in MLflow's own flavors.
        metadata: As in MLflow's own flavors.
        recipe: How it was quantized (quantizer, version, arguments, calibration digest), or a YAML file that says so;
            `mlflow_quantgov.reproduce` runs it again.

    Raises:
        ArtifactError: The files cannot be read, or `path` exists and is not empty.
        LineageError: Quantized without a parent, or not of the parent's architecture.
    """
    check_environment(conda_env, pip_requirements, extra_pip_requirements)
    root = Path(path)
    if root.exists() and any(root.iterdir()):
        raise ArtifactError(f"{root} exists and is not empty.", why="Nothing was saved.", fix=f"rm -r {root}")
    with prepared_model(model, parent=parent, target=target, calibration=calibration, recipe=recipe) as prepared:
        try:
            manifest = _write_files(prepared, root)
            _write_mlmodel(prepared, root, mlflow_model or Model(), signature, input_example, metadata, code_paths)
            write_environment(
                root,
                runtime=prepared.target.runtime if prepared.target else None,
                format=prepared.inspection.quantization.format,
                conda_env=conda_env,
                pip_requirements=pip_requirements,
                extra_pip_requirements=extra_pip_requirements,
            )
            _check_copy(prepared, manifest)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise


def log_model(
    model: Any,
    name: str | None = None,
    parent: str | None = None,
    target: str | Path | Target | None = None,
    calibration: CalibrationData | None = None,
    registered_model_name: str | None = None,
    conda_env: dict[str, Any] | str | None = None,
    code_paths: list[str] | None = None,
    signature: ModelSignature | None = None,
    input_example: ModelInputExample | None = None,
    await_registration_for: int = 300,
    pip_requirements: Sequence[str] | str | None = None,
    extra_pip_requirements: Sequence[str] | str | None = None,
    metadata: dict[str, Any] | None = None,
    params: dict[str, Any] | None = None,
    tags: dict[str, Any] | None = None,
    model_type: str | None = None,
    step: int = 0,
    model_id: str | None = None,
    recipe: Recipe | str | Path | None = None,
) -> ModelInfo:
    """Log a model, and register it where a name is given; arguments as for `save_model` and MLflow's own flavors.

    After a quantized version, its parent becomes a version of the same registered model too (unless it is one), so
    that an alias can be moved back to it.

    Returns:
        MLflow's description of the logged model.

    Raises:
        ArtifactError: The files cannot be read. Nothing was logged.
        LineageError: Quantized without a parent, or not of the parent's architecture. Nothing was logged.
    """
    # Everything that can be wrong is found here, before MLflow creates a run or a model.
    check_names(name, registered_model_name)
    check_environment(conda_env, pip_requirements, extra_pip_requirements)
    with prepared_model(model, parent=parent, target=target, calibration=calibration, recipe=recipe) as prepared:
        info = Model.log(
            artifact_path=None,
            name=name,
            flavor=sys.modules[__name__],
            registered_model_name=registered_model_name,
            await_registration_for=await_registration_for,
            metadata=metadata,
            params=facts_as_params(prepared) | (params or {}),
            tags=tags,
            model_type=model_type,
            step=step,
            model_id=model_id,
            model=prepared,
            conda_env=conda_env,
            code_paths=code_paths,
            signature=signature,
            input_example=input_example,
            pip_requirements=pip_requirements,
            extra_pip_requirements=extra_pip_requirements,
        )
    if prepared.calibration is not None:
        metrics.record(info.model_id, prepared.calibration)
    if registered_model_name:
        version = str(info.registered_model_version)
        describe_version(registered_model_name, version, prepared)
        if prepared.parent is not None:
            ensure_parent_version(registered_model_name, prepared.parent)
    return info


def log_parent(
    model: Any,
    name: str | None = None,
    registered_model_name: str | None = None,
    target: str | Path | Target | None = None,
    **kwargs: Any,
) -> ModelInfo:
    """Log a full-precision model that others are quantized from; arguments as for `log_model`, without a parent.

    Raises:
        LineageError: The model is quantized.
        ArtifactError: The files cannot be read. Nothing was logged.
    """
    return log_model(model, name=name, registered_model_name=registered_model_name, target=target, **kwargs)


def load_model(
    model_uri: str, dst_path: str | None = None, verify: bool = True, approved: str | None = None
) -> GenerationModel:
    """Load a model in the runtime that its target names, after checking every digest.

    `mlflow_quantgov.load_model` also asks the gate whether a protected alias or stage was approved.

    Args:
        model_uri: Any URI that MLflow reads.
        dst_path: Folder to download to; None for this package's cache.
        verify: Compare the files with the manifest that was written at logging.
        approved: Manifest digest that the files must have, whatever stands beside them.

    Raises:
        TamperingError: A file is not the one that was logged, or not the one that was approved.
    """
    root = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=dst_path)) if dst_path else None
    root = root or local_model(model_uri).root
    return _open(root, verify=verify, approved=approved)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> GenerationModel:
    """Load for `mlflow.pyfunc`; `path` is the folder with the model's files."""
    root = Path(path).parent
    return _open(root, verify=True, approved=approved_manifest(root))


def _open(root: Path, *, verify: bool, approved: str | None = None) -> GenerationModel:
    saved = layout.SavedModel(root)
    manifest = saved.manifest() if verify or approved is not None else None
    if approved is not None and manifest is not None and manifest.digest != approved:
        raise TamperingError(
            f"The files of {root.name} are not those that were approved.",
            why="Somebody has put others in their place since the gate decided.",
            fix="quantgov audit log, then promote the version that should serve; verify=False loads it all the same",
        )
    if verify and manifest is not None:
        problems = manifest.verify(saved.files)
        if problems:
            raise TamperingError(
                f"The files of {root.name} are not those that were logged: {problems[0]}",
                why="Evidence and approval are about other bytes.",
                fix="quantgov doctor, then log the model again; verify=False loads it all the same",
            )
    target = saved.lineage().target
    adapter = runtime_for(saved.artifact, preferred=target.runtime if target else None)
    return GenerationModel(adapter.open(saved.artifact, cache=cache_folder() / "twins"), saved.artifact)


def _write_files(prepared: Prepared, root: Path) -> Manifest:
    destination = root / layout.MODEL_FOLDER
    root.mkdir(parents=True, exist_ok=True)
    manifest = copy_with_manifest(prepared.files, destination)
    own = root / layout.OWN_FOLDER
    own.mkdir()
    facts, parent = prepared.parent_facts, prepared.parent
    link = {"uri": parent.uri, "weights": facts.weights, "manifest": facts.manifest} if parent and facts else None
    record = layout.LineageRecord(prepared.role, link, prepared.target, prepared.recipe)
    (root / layout.MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    (root / layout.QUANTIZATION_FILE).write_text(
        layout.dump(prepared.inspection.quantization.to_dict()), encoding="utf-8"
    )
    (root / layout.LINEAGE_FILE).write_text(record.to_json(), encoding="utf-8")
    if prepared.calibration is not None:
        write_copy(root, Statement.about(manifest.weights_digest, prepared.calibration, name="calibration"))
    return manifest


def _check_copy(prepared: Prepared, manifest: Manifest) -> None:
    """Refuse where the source changed between inspection and copy."""
    if manifest.total_size != prepared.inspection.quantization.size_bytes:
        raise ArtifactError(
            f"{prepared.files} changed while it was being copied.",
            why="What was inspected is not what would be logged. Nothing was logged.",
            fix="wait until the quantizer has finished writing, and log again",
        )


def _write_mlmodel(
    prepared: Prepared,
    root: Path,
    mlflow_model: Model,
    signature: ModelSignature | None,
    input_example: ModelInputExample | None,
    metadata: dict[str, Any] | None,
    code_paths: list[str] | None,
) -> None:
    mlflow_model.signature = signature or default_signature()
    if input_example is not None:
        from mlflow.models.utils import _save_example

        _save_example(mlflow_model, input_example, str(root))
    if metadata is not None:
        mlflow_model.metadata = metadata
    code = None
    for source in code_paths or ():
        code = "code"
        origin = Path(source)
        copy = shutil.copytree if origin.is_dir() else shutil.copy2
        (root / code).mkdir(exist_ok=True)
        copy(origin, root / code / origin.name)
    pyfunc.add_to_model(
        mlflow_model,
        loader_module="mlflow_quantgov.flavor",
        data=layout.MODEL_FOLDER,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        code=code,
    )
    mlflow_model.add_flavor(
        FLAVOR_NAME,
        quantgov_version=__version__,
        data=layout.MODEL_FOLDER,
        role=prepared.role,
        format=prepared.inspection.quantization.format,
        code=code,
    )
    mlflow_model.model_size_bytes = prepared.inspection.quantization.size_bytes
    mlflow_model.save(str(root / MLMODEL_FILE_NAME))


def default_signature() -> ModelSignature:
    """Texts in, texts out, with the two parameters that change an answer."""
    text = Schema([ColSpec(DataType.string)])
    settings = ParamSchema(
        [
            ParamSpec("max_tokens", DataType.long, DEFAULT_MAX_TOKENS),
            ParamSpec("chat", DataType.boolean, True),
        ]
    )
    return ModelSignature(inputs=text, outputs=text, params=settings)

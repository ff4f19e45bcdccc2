"""What the files of one version hold."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from pydantic import ValidationError
from sqlalchemy import Engine

from mlflow_quantgov.artifact.inspect import inspect_model
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.errors import ArtifactError, QuantgovError
from mlflow_quantgov.flavor.download import model_artifact
from mlflow_quantgov.flavor.layout import LINEAGE_FILE, MANIFEST_FILE, LineageRecord, SavedModel, read_lineage
from mlflow_quantgov.gate.facts.contents import loading_problem, other_problem
from mlflow_quantgov.gate.facts.copies import copies_below
from mlflow_quantgov.gate.facts.sources import VersionRef, location_of, path_here, stored_at
from mlflow_quantgov.lineage import ModelFacts, facts_of
from mlflow_quantgov.policy.facts import Role


@dataclass(frozen=True)
class ReadVersion:
    """What one version's files hold."""

    role: Role
    model: ModelFacts | None
    recorded: str | None
    record: LineageRecord | None
    copies: tuple[tuple[str, bytes], ...]
    problems: tuple[str, ...]


def read_version(root: Path) -> ReadVersion:
    """Read the files of a version.

    Args:
        root: Folder (or the one file) of the version, on this machine.
    """
    artifact = model_artifact(root) if root.is_dir() else root
    found, problem = inspect_version(root, artifact)
    if found is None:
        return ReadVersion("unknown" if problem else "other", None, None, None, (), (problem,) if problem else ())
    recorded, record, problems = _own_files(root)
    copies, unread = copies_below(root)
    return ReadVersion("quantized", facts_of(artifact, found), recorded, record, copies, problems + unread)


def claimed_parent(ref: VersionRef, engine: Engine | None) -> dict[str, Any] | None:
    """The parent that was written down at logging; nothing but that one file is fetched.

    Args:
        ref: The version.
        engine: The registry's database.

    Raises:
        ArtifactError: Nobody knows where the files lie.
        ValueError: The file is not what this flavor writes.
    """
    root = path_here(ref, engine)
    if root is None and ref.location is not None:
        with tempfile.TemporaryDirectory(prefix="quantgov-lineage-") as scratch:
            try:
                repository = get_artifact_repository(stored_at(location_of(ref, engine)))
                fetched = Path(repository.download_artifacts(LINEAGE_FILE, scratch))
            except Exception:  # noqa: BLE001  (a store of another kind says in its own way that there is no such file)
                return None
            return read_lineage(fetched).parent
    if root is None or not (root / LINEAGE_FILE).is_file():
        return None
    return SavedModel(root).lineage().parent


def inspect_version(root: Path, artifact: Path) -> tuple[Inspection | None, str | None]:
    """What the files are; (None, None) for a model of another kind, (None, problem) where nobody can tell."""
    try:
        found = inspect_model(artifact)
    except ArtifactError as error:
        if (root / MANIFEST_FILE).exists():
            return None, error.what
        problem = other_problem(root)
        return None, None if problem is None else f"{error.what} {problem}"
    if found.is_language_model or found.quantization.is_quantized:
        return found, None
    # Inspected, and of another kind; but something else in the folder may be what it serves.
    return None, other_problem(root, artifact)


def _own_files(root: Path) -> tuple[str | None, LineageRecord | None, tuple[str, ...]]:
    if not (root / MANIFEST_FILE).is_file():
        return None, None, ()
    saved = SavedModel(root)
    try:
        manifest, record = saved.manifest(), saved.lineage() if (root / LINEAGE_FILE).is_file() else None
        problem = loading_problem(root, saved.files)
        return manifest.digest, record, (problem,) if problem else ()
    except (QuantgovError, ValidationError, ValueError) as error:
        return None, None, (f"The files under quantgov/ are wrong: {str(error)[:200]}",)

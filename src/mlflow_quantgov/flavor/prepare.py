"""Everything that must be right before a model is logged: its files, its parent, its target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.objects import save_object
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.errors import ArtifactError, LineageError
from mlflow_quantgov.evidence.targets import Target, find_target
from mlflow_quantgov.flavor.download import LocalModel, local_model
from mlflow_quantgov.lineage import ModelFacts, structure_problems


@dataclass(frozen=True)
class Prepared:
    """A model that may be logged."""

    files: Path
    inspection: Inspection
    parent: LocalModel | None
    parent_facts: ModelFacts | None
    target: Target | None

    @property
    def role(self) -> str:
        """`quantized` where a parent was named, else `parent`."""
        return "quantized" if self.parent else "parent"


@contextmanager
def files_of(model: Any) -> Iterator[Path]:
    """A path as it is, or a loaded object written to a temporary folder.

    Raises:
        ArtifactError: The path does not exist.
        UsageError: The object cannot be saved.
    """
    if isinstance(model, str | Path):
        path = Path(model)
        if not path.exists():
            raise ArtifactError(f"{path} does not exist.", why="Nothing was logged.", fix=f"ls {path.parent}")
        yield path
        return
    with TemporaryDirectory(prefix="quantgov-") as scratch:
        save_object(model, Path(scratch))
        yield Path(scratch)


def prepare(files: Path, *, parent: str | None, target: str | Path | Target | None) -> Prepared:
    """Inspect a model and check it against its parent; nothing is written.

    Args:
        files: Folder or file of the model.
        parent: URI of the full-precision parent; None for a parent itself.
        target: Name or path of the deployment target, or the target.

    Raises:
        ArtifactError: The files cannot be read, or hold no language model.
        LineageError: Quantized without a parent, a parent that is quantized, or another architecture.
        PolicyError: The target is unknown or wrong.
    """
    found = inspect(files)
    declared = find_target(target) if isinstance(target, str | Path) else target
    if not found.is_language_model:
        raise ArtifactError(
            f"{files} holds no language-model weights.",
            why="This flavor governs language models; others keep their own flavor and pass the gate as they are.",
            fix="log it with the flavor of its own library, such as mlflow.sklearn.log_model",
        )
    if parent is None:
        if found.quantization.is_quantized:
            raise LineageError(
                f"{files} is quantized ({found.quantization.format}) and names no parent.",
                why="Without its full-precision parent nobody can tell what the quantization has cost.",
                fix='mlflow_quantgov.log_model(..., parent="models:/NAME/VERSION")',
            )
        return Prepared(files, found, None, None, declared)
    named = local_model(parent)
    facts = named.facts()
    manifest = build_manifest(files)
    child = ModelFacts(manifest.weights_digest, manifest.digest, found.quantization, found.structure)
    problems = structure_problems(child, facts)
    if problems:
        raise LineageError(
            f"{files} does not fit the parent {parent}: {problems[0]}",
            why="Evidence about another model's descendant would say nothing about this one. Nothing was logged.",
            fix="name the version that it was quantized from: parent=models:/NAME/VERSION",
        )
    return Prepared(files, found, named, facts, declared)

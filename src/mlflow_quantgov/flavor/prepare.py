"""Everything that must be right before a model is logged: its files, its parent, its target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow_quantgov.artifact.inspect import inspect_model
from mlflow_quantgov.artifact.manifest import refuse_part
from mlflow_quantgov.artifact.objects import save_object
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.quantizers.recipe import Recipe, read_recipe
from mlflow_quantgov.artifact.quantizers.registry import find_quantizer, quantizer_names
from mlflow_quantgov.errors import ArtifactError, LineageError, UsageError
from mlflow_quantgov.evidence.calibration_data import CalibrationData
from mlflow_quantgov.evidence.predicates.calibration import Calibration
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
    calibration: Calibration | None = None
    """What the author said about calibration data, assessed."""
    recipe: Recipe | None = None
    """How it was quantized."""

    @property
    def role(self) -> str:
        """`quantized` where a parent was named, else `parent`."""
        return "quantized" if self.parent else "parent"


@contextmanager
def prepared_model(
    model: Any,
    *,
    parent: str | None,
    target: str | Path | Target | None,
    calibration: CalibrationData | None,
    recipe: Recipe | str | Path | None = None,
) -> Iterator[Prepared]:
    """A model that may be logged, its files in place while the context lasts.

    Args:
        model: A path, a loaded object, or a model that was prepared before (then the rest is not looked at).
        parent: See `prepare`.
        target: See `prepare`.
        calibration: See `prepare`.
        recipe: See `prepare`.
    """
    if isinstance(model, Prepared):
        yield model
        return
    with _files_of(model) as files:
        found = prepare(files, parent=parent, target=target, calibration=calibration)
        yield replace(found, recipe=_recipe(recipe, found)) if recipe is not None else found


@contextmanager
def _files_of(model: Any) -> Iterator[Path]:
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


def _recipe(given: Recipe | str | Path, prepared: Prepared) -> Recipe:
    """The recipe of a quantized model, which must name the calibration data that is recorded beside it.

    Raises:
        PolicyError: The file cannot be read, or a key is misspelt.
        UsageError: It belongs to no quantized model, or names other data.
    """
    recipe = given if isinstance(given, Recipe) else read_recipe(Path(given))
    if prepared.parent is None:
        raise UsageError(
            "A recipe was given for a full-precision model.",
            why="A recipe says how a model was quantized from its parent.",
            fix="leave the recipe out, or log the quantized model",
        )
    if recipe.quantizer in quantizer_names():
        find_quantizer(recipe.quantizer).check(recipe.arguments, has_texts=recipe.calibration is not None)
    recorded = prepared.calibration.data.digest if prepared.calibration else recipe.calibration
    if recorded != recipe.calibration:
        raise UsageError(
            f"The recipe names calibration data {recipe.calibration or '(none)'}; the data given has {recorded}.",
            why="One of them is not what the quantizer saw. Nothing was logged.",
            fix=f"calibration: {recorded}   (in the recipe)",
        )
    return recipe


def prepare(
    files: Path, *, parent: str | None, target: str | Path | Target | None, calibration: CalibrationData | None = None
) -> Prepared:
    """Inspect a model and check it against its parent; nothing is written.

    Args:
        files: Folder or file of the model.
        parent: URI of the full-precision parent; None for a parent itself.
        target: Name or path of the deployment target, or the target.
        calibration: The data that the quantizer saw.

    Raises:
        UsageError: A file of calibration data does not exist or holds no documents.
        ArtifactError: The files cannot be read, hold no language model, or are a graph without its weights.
        LineageError: Quantized without a parent, a parent that is quantized, or another architecture.
        PolicyError: The target is unknown or wrong.
    """
    if calibration is not None and not isinstance(calibration, CalibrationData):
        raise UsageError(
            f"calibration is a {type(calibration).__name__}.",
            why="It has to say which file is the data, and may name a sample of production.",
            fix='calibration=mlflow_quantgov.Calibration(data="calib.jsonl", production="traffic.jsonl")',
        )
    refuse_part(files)
    found = inspect_model(files)
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
        return Prepared(files, found, None, None, declared, _assessed(calibration, files, found))
    named = _registered_parent(files, found, parent)
    facts = named.facts()
    problems = structure_problems(found.structure, facts)
    if problems:
        raise LineageError(
            f"{files} does not fit the parent {parent}: {problems[0]}",
            why="Evidence about another model's descendant would say nothing about this one. Nothing was logged.",
            fix="name the version that it was quantized from: parent=models:/NAME/VERSION",
        )
    return Prepared(files, found, named, facts, declared, _assessed(calibration, files, found))


def _assessed(calibration: CalibrationData | None, files: Path, found: Inspection) -> Calibration | None:
    return calibration.assess(found.quantization.calibration_data, files) if calibration else None


def _registered_parent(files: Path, found: Inspection, parent: str) -> LocalModel:
    """The version that a quantized model names as its parent."""
    if not found.quantization.is_quantized:
        raise LineageError(
            f"{files} is full precision, and names a parent.",
            why="Only a quantized model has a full-precision parent; this one is logged as a parent itself.",
            fix=f"quantgov log-parent {files} --name parent --register NAME",
        )
    named = local_model(parent)
    if named.version is None:
        raise LineageError(
            f"The parent {parent} is no registered version.",
            why="The gate looks at registered parents alone, and a rollback needs one.",
            fix="quantgov log-parent PATH --name parent --register NAME, then parent=models:/NAME/VERSION",
        )
    return named

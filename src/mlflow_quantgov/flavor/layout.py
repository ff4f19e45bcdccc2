"""What lies where in a saved model: the files as produced under `model/`, ours under `quantgov/`."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.files import parse_json
from mlflow_quantgov.artifact.manifest import Manifest
from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.evidence.targets import Target

MODEL_FOLDER = "model"
OWN_FOLDER = "quantgov"
MANIFEST_FILE = f"{OWN_FOLDER}/manifest.json"
QUANTIZATION_FILE = f"{OWN_FOLDER}/quantization.json"
LINEAGE_FILE = f"{OWN_FOLDER}/lineage.json"
MAX_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class LineageRecord:
    """What was written down at logging about role, parent and target."""

    role: str
    parent: dict[str, str] | None
    """`uri`, `weights`, `manifest` of the parent; None for a parent itself."""
    target: Target | None
    recipe: Recipe | None = None
    """How it was quantized, where the author wrote it down."""

    def to_json(self) -> str:
        """Readable JSON."""
        target = self.target.model_dump(mode="json", by_alias=True) if self.target else None
        recipe = self.recipe.model_dump(mode="json") if self.recipe else None
        return dump({"role": self.role, "parent": self.parent, "target": target, "recipe": recipe})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LineageRecord:
        """Read what `to_json` wrote."""
        target, recipe, parent = data.get("target"), data.get("recipe"), data.get("parent")
        if parent is not None and not (
            isinstance(parent, dict) and all(isinstance(one, str) for one in parent.values())
        ):
            raise ValueError("its parent is not named by texts")
        return cls(
            role=str(data.get("role")),
            parent=parent,
            target=Target.model_validate(target) if target else None,
            recipe=Recipe.model_validate(recipe) if recipe else None,
        )


@dataclass(frozen=True)
class SavedModel:
    """A model folder in MLflow's format that this flavor wrote."""

    root: Path

    @property
    def files(self) -> Path:
        """Folder that holds the model as produced."""
        return self.root / MODEL_FOLDER

    @property
    def artifact(self) -> Path:
        """What `inspect` reads: the folder, or the one file in it that is a whole model (GGUF, ONNX)."""
        return sole_model_file(self.files) or self.files

    def manifest(self) -> Manifest:
        """Digests that were written at logging."""
        return Manifest.from_json(_read(self.root / MANIFEST_FILE))

    def lineage(self) -> LineageRecord:
        """Role, parent and target as written at logging: see `read_lineage`."""
        return read_lineage(self.root / LINEAGE_FILE)


def read_lineage(path: Path) -> LineageRecord:
    """Read the file that says what a model was made from.

    Raises:
        ArtifactError: It cannot be read.
        ValueError: It is no such record.
    """
    found = parse_json(_read(path).encode())
    if not isinstance(found, dict):
        raise ValueError(f"{LINEAGE_FILE} holds no object")
    return LineageRecord.from_dict(found)


def sole_model_file(folder: Path) -> Path | None:
    """The one `.gguf` or `.onnx` file of a folder that holds nothing else, or None."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].suffix in {".gguf", ".onnx"} and entries[0].is_file():
        return entries[0]
    return None


def _read(path: Path) -> str:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no ordinary file")
        if status.st_size > MAX_JSON_BYTES:
            raise OSError("it is too large")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{path.name} of the logged model cannot be read: {error}.",
            why="Without it nobody can tell whether the files are those that were logged.",
            fix="log the model again with mlflow_quantgov.log_model",
        ) from error


def dump(value: dict[str, Any]) -> str:
    """Readable JSON with a fixed order of keys."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"

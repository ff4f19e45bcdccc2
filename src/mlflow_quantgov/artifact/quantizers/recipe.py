"""How a model was quantized, precisely enough to do it again: quantizer, version, arguments, calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from mlflow_quantgov.yaml_files import FileKind, parse_yaml, read_yaml, validate

_KIND = FileKind(
    why="A recipe that is not understood whole cannot be run again.",
    without="Without a recipe nothing says how the model is quantized.",
    schemas=("recipe",),
)
_DIGEST = r"^sha256:[0-9a-f]{64}$"


class Recipe(BaseModel):
    """A recorded recipe.

    Example:
        ```python
        Recipe(quantizer="bitsandbytes", version="0.50.2", arguments={"load_in_4bit": True})
        ```
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    quantizer: Annotated[str, Field(min_length=1, max_length=100)]
    """Name under which it is found: `llama.cpp`, `bitsandbytes`, `gptqmodel`, ..."""
    version: Annotated[str, Field(min_length=1, max_length=100)]
    """Of the quantizer's own distribution."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Plain JSON values; every quantizer lists those that it takes."""
    calibration: Annotated[str, Field(pattern=_DIGEST)] | None = None
    """Digest of the file that it saw; None where it saw none."""


def read_recipe(path: Path) -> Recipe:
    """A recipe in a YAML or JSON file.

    Raises:
        PolicyError: It cannot be read, or a key is misspelt or missing.
    """
    return validate(Recipe, parse_yaml(read_yaml(path, _KIND), path.name, _KIND), path.name, _KIND)

"""Quantize by a recipe, and run the recipe of a version again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_quantgov.errors import UsageError, no_such_file
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.flavor.download import cache_folder, local_model
from mlflow_quantgov.versions import (
    attach_content,
    pair_of,
    record_of,
    signer_of,
)

if TYPE_CHECKING:
    from mlflow_quantgov.artifact.quantizers.recipe import Recipe


def quantize(
    parent: str | Path, output: str | Path, recipe: Recipe | str | Path, *, calibration: str | Path | None = None
) -> Path:
    """Quantize a full-precision model as a recipe says, so that the recipe that is logged is the one that was run.

    Args:
        parent: Folder or file of the full-precision model.
        output: Folder to create.
        recipe: What to do, or a YAML file that says so.
        calibration: The calibration file, where the recipe names one.

    Returns:
        What was made: the folder, or the one file in it.

    Raises:
        UsageError: The recipe does not fit, another version of the quantizer is installed, or it fails.
        MissingExtraError: The quantizer is not installed.
    """
    from mlflow_quantgov.artifact.quantizers.recipe import Recipe, read_recipe
    from mlflow_quantgov.evidence.measure import reproduction

    chosen = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe))
    source = Path(parent)
    if not source.exists():
        raise no_such_file(source, "Nothing was quantized.")
    return reproduction.quantize(source, Path(output), chosen, Path(calibration) if calibration is not None else None)


def reproduce(
    uri: str,
    recipe: Recipe | str | Path | None = None,
    *,
    calibration: str | Path | None = None,
    checkpoint: str | None = None,
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Run the recipe of a quantized version again on its parent, compare byte by byte, and attach what was found.

    Args:
        uri: The quantized version.
        recipe: How it was quantized, or a YAML file that says so; None for what was recorded at logging.
        calibration: The calibration file, where the recipe names one.
        checkpoint: The trained checkpoint that was quantized, `models:/NAME/VERSION`; None for the parent itself.
        progress: Called with a message and a fraction from 0 to 1.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.

    Raises:
        UsageError: No recipe is known, it does not fit its quantizer, or another version of it is installed.
        MissingExtraError: The quantizer is not installed.
    """
    signer = signer_of(key)
    from mlflow_quantgov.artifact.quantizers.recipe import Recipe, read_recipe
    from mlflow_quantgov.evidence.measure import reproduction

    pair = pair_of(uri)
    record = record_of(pair.quantized)
    given = recipe if isinstance(recipe, Recipe) or recipe is None else read_recipe(Path(recipe))
    chosen = given or (record.recipe if record else None)
    if chosen is None:
        raise UsageError(
            f"No recipe of {uri} is known.",
            why="Without quantizer, version and arguments nothing can be run again.",
            fix=f"quantgov reproduce {uri} --recipe recipe.yaml",
        )
    source = local_model(checkpoint) if checkpoint is not None else pair.parent
    found = reproduction.reproduce(
        pair.quantized.artifact,
        source.artifact,
        chosen,
        weights=pair.quantized_weights,
        parent_weights=source.manifest().weights_digest if checkpoint is not None else pair.parent_weights,
        calibration=Path(calibration) if calibration is not None else None,
        cache=cache_folder(),
        progress=progress,
    )
    return attach_content(pair.quantized, pair.quantized_weights, found, signer)

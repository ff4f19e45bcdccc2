"""Run a recorded recipe again on the parent, and compare what it makes with the version, byte by byte."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mlflow_quantgov.artifact.files import list_files
from mlflow_quantgov.artifact.inspect import inspect_model
from mlflow_quantgov.artifact.quantizers.interface import Quantizer
from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.quantizers.registry import find_quantizer
from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.artifact.weights import WeightPart, tensors_in, weight_parts
from mlflow_quantgov.errors import ArtifactError, LineageError, QuantgovError, UsageError, nearest_folder
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates.reproduction import Difference, MadePart, Reproduction

_CHUNK = 16 * 1024 * 1024


def quantize(parent: Path, target: Path, recipe: Recipe, calibration: Path | None = None) -> Path:
    """Make a quantized model as a recipe says, in the version that it names.

    Args:
        parent: Folder or file of the full-precision model.
        target: Folder to create.
        recipe: What to do.
        calibration: The file whose digest the recipe names; None where it names none.

    Returns:
        What was made: the folder, or the one file in it.

    Raises:
        UsageError: The recipe does not fit its quantizer or the calibration file, another version is installed, the
            target exists, or the quantizer fails. Nothing is left behind.
        ArtifactError: The parent is no model.
        LineageError: The parent is quantized.
        MissingExtraError: The quantizer is not installed.
    """
    quantizer = find_quantizer(recipe.quantizer)
    texts = _texts(recipe, calibration)
    quantizer.check(recipe.arguments, has_texts=bool(texts))
    _check_version(quantizer, recipe)
    _check_parent(parent)
    if target.exists():
        raise UsageError(f"{target} exists.", why="Nothing was quantized.", fix=f"rm -r {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quantizing-", dir=target.parent) as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        made = _run(quantizer, parent, folder, recipe, texts)
        place = made.relative_to(folder)
        folder.rename(target)
    return target / place


def reproduce(
    version: Path,
    parent: Path,
    recipe: Recipe,
    *,
    weights: str,
    parent_weights: str,
    calibration: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Run a recipe again, and say whether it gives the same bytes, or where not.

    Args:
        version: Folder or file of the quantized version.
        parent: Folder or file of its parent.
        recipe: How the version was made, as recorded.
        weights: Weights digest of the version.
        parent_weights: The parent's.
        calibration: The calibration file, where the recipe names one.
        cache: Folder in which the second model lies for a moment; None for the system's own.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: See `quantize`.
    """
    report = progress or (lambda message, fraction: None)
    quantizer = find_quantizer(recipe.quantizer)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quantgov-reproduction-", dir=cache) as scratch:
        report(f"running {recipe.quantizer} again", 0.1)
        made = quantize(parent, Path(scratch) / "again", recipe, calibration)
        report("comparing", 0.9)
        parts = weight_parts(made)
        found = tuple(_differences(version, weight_parts(version), made, parts))
    report("done", 1.0)
    return Reproduction.measured(
        provenance=provenance(quantizer.distribution, *quantizer.libraries),
        weights=weights,
        parent=parent_weights,
        recipe=recipe,
        ran_version=quantizer.version(),
        machine=this_machine(),
        made=tuple(MadePart(name=p.name, sha256=p.sha256, dtype=p.dtype, shape=p.shape) for p in parts),
        differences=found,
    )


def _texts(recipe: Recipe, calibration: Path | None) -> Sequence[str]:
    """Texts of the calibration file, which must be the one that the recipe names."""
    if recipe.calibration is None and calibration is None:
        return ()
    if calibration is None:
        raise UsageError(
            f"The recipe calibrates on the file with the digest {recipe.calibration}, and none was given.",
            why="Without it the quantizer would do something else.",
            fix="add --calibration FILE",
        )
    if not calibration.exists() and recipe.calibration is not None:
        raise UsageError(
            f"{calibration} does not exist.",
            why=f"The recipe calibrates on the file with the digest {recipe.calibration}.",
            fix=f"find it, and name it with --calibration: find {nearest_folder(calibration)} -type f -exec sha256sum {{}} + "
            f"| grep {recipe.calibration.removeprefix('sha256:')}",
        )
    texts = read_documents(calibration)
    if (found := file_digest(calibration)) != recipe.calibration:
        named = recipe.calibration or "no calibration data"
        raise UsageError(
            f"{calibration.name} has the digest {found}; the recipe names {named}.",
            why="With other data the quantizer makes other weights.",
            fix="give the file that was used, or correct the recipe",
        )
    return texts


def _check_parent(parent: Path) -> None:
    """Refuse what is no full-precision model, before a quantizer complains about it in its own words."""
    found = inspect_model(parent).quantization
    if found.is_quantized:
        raise LineageError(
            f"{parent.name} is quantized already ({found.format}).",
            why="Quantizing twice adds the errors of both, and hides the parent.",
            fix="name the full-precision model that it was made from",
        )


def _check_version(quantizer: Quantizer, recipe: Recipe) -> None:
    installed = quantizer.version()
    if installed != recipe.version:
        package = quantizer.distribution
        raise UsageError(
            f"The recipe was run with {package} {recipe.version}; {installed} is installed here.",
            why="Another version may make other bytes, which would say nothing about the recipe.",
            fix=f"pip install '{package}=={recipe.version}'",
        )


def _run(quantizer: Quantizer, parent: Path, folder: Path, recipe: Recipe, texts: Sequence[str]) -> Path:
    """Run it; whatever its library raises is one clear line."""
    try:
        return quantizer.run(parent, folder, recipe.arguments, texts)
    except QuantgovError:
        raise
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UsageError(
            f"{recipe.quantizer} fails on {parent.name}: {problem}",
            why="The recipe made nothing.",
            fix="correct the arguments of the recipe",
        ) from error


def _differences(
    version: Path, theirs: Sequence[WeightPart], made: Path, ours: Sequence[WeightPart]
) -> Iterator[Difference]:
    """Every part that is not the same in both, by name."""
    recorded, again = {one.name: one for one in theirs}, {one.name: one for one in ours}
    here, there = _tensors(version), _tensors(made)
    for name in sorted(recorded.keys() | again.keys()):
        problem = _difference(recorded.get(name), again.get(name))
        if problem == "" and name in here and name in there:
            problem = _bytes_that_differ(here[name], there[name])
        if problem is not None:
            yield Difference(name=name[:1000], problem=problem or "other bytes")


def _difference(recorded: WeightPart | None, again: WeightPart | None) -> str | None:
    """What is different about a part; empty where only its bytes are, None where nothing is."""
    if recorded is None or again is None:
        return "only in the second run" if recorded is None else "the second run does not make it"
    if (recorded.dtype, recorded.shape) != (again.dtype, again.shape):
        return f"{again.dtype} {list(again.shape)} where the version has {recorded.dtype} {list(recorded.shape)}"
    return None if recorded.sha256 == again.sha256 else ""


def _tensors(path: Path) -> dict[str, Tensor]:
    return {one.name: one for one in tensors_in(dict(list_files(path)))}


def _bytes_that_differ(one: Tensor, other: Tensor) -> str:
    """How many bytes of two tensors differ."""
    if one.size != other.size:
        raise ArtifactError(f"{one.name[:200]} changed while it was compared.", fix="try again")
    here, there = one.raw(), other.raw()
    parts = range(0, one.size, _CHUNK)
    count = sum(int(np.count_nonzero(here[at : at + _CHUNK] != there[at : at + _CHUNK])) for at in parts)
    return f"{count:,} of {one.size:,} bytes differ ({100 * count / one.size:.2g} %)"

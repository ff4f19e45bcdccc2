"""The link from a quantized version to its full-precision parent, and how far it is proved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlflow_quantgov.artifact.behaviour import behaviour_digest
from mlflow_quantgov.artifact.derivation.descent import Descent
from mlflow_quantgov.artifact.derivation.spelling import shapes_as_child_spells
from mlflow_quantgov.artifact.inspect import inspect_model
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.quantization import Inspection, Quantization, Structure
from mlflow_quantgov.artifact.settings import differences
from mlflow_quantgov.artifact.structure import architecture_family
from mlflow_quantgov.errors import short

if TYPE_CHECKING:
    from mlflow_quantgov.checkpoint import Checkpoint

LineageLevel = Literal["none", "declared", "digest", "structure", "numeric", "reproduced"]
LEVELS: tuple[LineageLevel, ...] = ("none", "declared", "digest", "structure", "numeric", "reproduced")

_OUTPUTS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class ModelFacts:
    """One model's files, as read on the server from the version's source."""

    weights: str
    """Weights digest, `sha256:...`."""
    manifest: str
    """Digest over all files."""
    behaviour: str
    """Digest of whatever else decides its answers."""
    quantization: Quantization
    structure: Structure


def facts_of(artifact: Path, found: Inspection | None = None) -> ModelFacts:
    """Read, hash and inspect the files of a model as they lie there.

    Args:
        artifact: Folder or file.
        found: What inspection found, where it was done before.

    Raises:
        ArtifactError: They cannot be read.
    """
    found = found or inspect_model(artifact)
    manifest, behaviour = build_manifest(artifact), behaviour_digest(artifact)
    return ModelFacts(manifest.weights_digest, manifest.digest, behaviour, found.quantization, found.structure)


@dataclass(frozen=True)
class Lineage:
    """How far the link to the parent is proved."""

    level: LineageLevel
    parent_uri: str | None
    parent: ModelFacts | None
    """The parent's own files; None where they could not be read."""
    parent_version: str | None = None
    """Version of the same registered model that rollback can move to."""
    problems: tuple[str, ...] = ()
    """Why the next level was not reached."""
    descent: Descent | None = None
    """The weights of both, compared; None where nobody asked for it, or a lower level already failed."""
    through: Checkpoint | None = None
    """The trained checkpoint that the weights are the rounding of, where they are not the parent's own; `descent` is then
    the comparison with it."""
    direct: Lineage | None = None
    """The link as it stands without that checkpoint, for gates that do not believe who names it."""

    @property
    def rounded_from(self) -> ModelFacts | None:
        """The full-precision model that was rounded: the trained checkpoint, where there is one between."""
        return self.through.model if self.through else self.parent

    def reaches(self, wanted: LineageLevel) -> bool:
        """Whether a demanded level holds."""
        return LEVELS.index(self.level) >= LEVELS.index(wanted)


def prove(
    child: ModelFacts,
    parent: ModelFacts | None,
    claimed: dict[str, str] | None,
    descent: Callable[[], Descent] | None = None,
) -> Lineage:
    """How far the claim "this was made from that" is borne out by the bytes of both.

    Args:
        child: The quantized version's own files.
        parent: The files of the version that it names; None where they could not be read.
        claimed: What was written down at logging: `uri`, `weights`, `manifest`; None where no parent was named.
        descent: Compares the weights of both, which reads all of their bytes; called only where the structure agrees.
            None where nobody asks for more than structure.

    Returns:
        The highest level that holds, and why the next one does not.
    """
    if not claimed:
        return Lineage("none", None, None, problems=("No full-precision parent is named.",))
    uri = claimed.get("uri")
    if parent is None:
        return Lineage("declared", uri, None, problems=(f"The files of the parent {uri} cannot be read here.",))
    if claimed.get("weights") != parent.weights:
        problem = f"The parent {uri} now holds other weights than those that were named at logging."
        return Lineage("declared", uri, parent, problems=(problem,))
    if parent.weights == child.weights:
        return Lineage("declared", uri, parent, problems=("A model cannot be its own parent.",))
    problems = structure_problems(child.structure, parent)
    if problems:
        return Lineage("digest", uri, parent, problems=problems)
    structure = Lineage("structure", uri, parent)
    return structure if descent is None else _with_descent(structure, descent())


def _with_descent(lineage: Lineage, descent: Descent) -> Lineage:
    """The level `numeric` where the weights bear it out."""
    if descent.holds:
        return replace(lineage, level="numeric", descent=descent)
    return replace(lineage, problems=(descent.reason,), descent=descent)


def with_reproduction(lineage: Lineage) -> Lineage:
    """The link after a second run of the recorded recipe gave the same bytes.

    A second run is somebody's word. It stands in for no comparison: the weights must have been proved before.
    """
    if lineage.level == "numeric":
        return replace(lineage, level="reproduced")
    if lineage.descent is not None and lineage.descent.verdict == "refuted":
        problem = "The recipe is said to give these bytes from this parent; the weights themselves deny it."
        return replace(lineage, problems=(*lineage.problems, problem))
    return lineage


def _as_tied(child: Structure, parent: Structure) -> Structure:
    """The child with its output matrix as the embedding too, where the parent's two are one and it kept that one.

    onnxruntime-genai's builder stores the one matrix of a tied model as the output.
    """
    embedding, output = "model.embed_tokens.weight", "lm_head.weight"
    tied = embedding in parent.tensors and (parent.tied or output not in parent.tensors)
    if not tied or embedding in child.tensors or output not in child.tensors:
        return child
    return replace(child, tensors=child.tensors | {embedding: child.tensors[output]})


def structure_problems(child: Structure, parent: ModelFacts) -> tuple[str, ...]:
    """Where the architecture of a quantized model is not its parent's; empty where it is."""
    problems = []
    for label, attribute in (
        ("architecture", "architecture"),
        ("hidden size", "hidden_size"),
        ("number of layers", "num_layers"),
        ("number of attention heads", "num_heads"),
        ("number of key-value heads", "num_kv_heads"),
        ("vocabulary size", "vocab_size"),
    ):
        mine, theirs = getattr(child, attribute), getattr(parent.structure, attribute)
        if attribute == "architecture" and mine and theirs:
            # GGUF calls a whole family of architectures by the name of its first member.
            mine, theirs = architecture_family(mine), architecture_family(theirs)
        # A loader fills in a number of its own where a config has none.
        unsaid = mine is None and child.settings.kind == "config" and attribute in {"num_layers", "num_heads"}
        if unsaid and theirs is not None:
            problems.append(f"The {label} is not set, the parent's is {theirs}.")
        if mine is not None and theirs is not None and mine != theirs:
            problems.append(f"The {label} is {mine}, the parent's is {theirs}.")
    problems.extend(_tensor_problems(_as_tied(child, parent.structure), parent.structure))
    if parent.quantization.is_quantized:
        problems.append(f"The parent is itself quantized ({parent.quantization.format}), not full precision.")
    # Settings of another architecture would only repeat what was said.
    return tuple(problems or _setting_problems(child, parent.structure))


def _setting_problems(child: Structure, parent: Structure) -> list[str]:
    """What the configs say of the computation, where they do not agree."""
    found = differences(child.settings, parent.settings)
    problems = [f"The config's {key} is {_said(mine)}, the parent's is {_said(theirs)}." for key, mine, theirs in found]
    tied, parent_tied = child.settings.ties, parent.settings.ties
    if tied is True and parent_tied is not True and not parent.tied and _has_output(parent):
        problems.append("The config ties the output matrix to the embedding, the parent has one of its own.")
    if tied is False and parent_tied is True and not _has_output(child):
        problems.append(
            "The config has an output matrix of its own, which is not there; the parent's is the embedding."
        )
    return problems


def _said(value: object) -> str:
    return "not set" if value is None else short(value)


def _has_output(structure: Structure) -> bool:
    return any(name.endswith(_OUTPUTS) for name in structure.tensors)


def _tensor_problems(child: Structure, parent: Structure) -> list[str]:
    """Weight matrices that differ in shape, or that the quantized model lacks.

    A matrix whose name a container lost has to have a counterpart of the very same shape on the other side, each its own.
    """
    mine = child.tensors
    spelled = shapes_as_child_spells(mine, parent.tensors)
    theirs = {name: shape for name, shape in spelled.items() if len(shape) >= 2}
    if not theirs and not parent.unnamed:
        return ["The parent's weight matrices could not be listed."]
    for name in sorted(theirs.keys() & mine.keys()):
        if tuple(mine[name]) != tuple(theirs[name]):
            return [f"The matrix {name} is {tuple(mine[name])}, the parent's is {tuple(theirs[name])}."]
    left = Counter(tuple(shape) for shape in child.unnamed)
    # A tied output matrix is stored once, in either file or in both; one of its own must not be lost.
    absent = sorted(name for name in theirs.keys() - mine.keys() if not (parent.tied and name.startswith("lm_head")))
    missing = [name for name in absent if not _take(left, theirs[name])]
    if missing:
        problem = f"{len(missing)} weight matrices of the parent are missing, the first is {missing[0]}"
        return [f"{problem}; none without a name has its shape." if child.unnamed else f"{problem}."]
    left += Counter(tuple(shape) for name, shape in mine.items() if name not in theirs)
    lost = [shape for shape in parent.unnamed if not _take(left, shape)]
    if lost:
        return [f"{len(lost)} weight matrices of the parent have no names and no counterpart, the first is {lost[0]}."]
    return []


def _take(left: Counter[tuple[int, ...]], shape: tuple[int, ...]) -> bool:
    """Take one matrix of this shape away; False where there is none."""
    if left[tuple(shape)] < 1:
        return False
    left[tuple(shape)] -= 1
    return True

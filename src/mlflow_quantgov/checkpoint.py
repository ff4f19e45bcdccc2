"""The trained checkpoint between an original and a quantized version: original, training, rounding, each from the bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from mlflow_quantgov.artifact.derivation.descent import Descent
from mlflow_quantgov.artifact.derivation.kinship import KIN, Kinship
from mlflow_quantgov.artifact.formats.full_precision import ON_GRID
from mlflow_quantgov.lineage import Lineage, ModelFacts, structure_problems

Fault = Literal[
    "unregistered", "other-weights", "original", "quantized", "on-grid", "structure", "stranger", "other-rounding",
    "unproved-rounding", "untrained",
]  # fmt: skip
"""Why a model is no trained checkpoint between an original and a quantized version."""


@dataclass(frozen=True)
class Checkpoint:
    """The full-precision model that a training statement names, as its own files show it."""

    uri: str
    claimed: str
    """Weights digest that the statement gives."""
    original: str
    """Weights digest of the full-precision model that training is said to have begun with."""
    model: ModelFacts | None
    """Its files; None where it is no registered version, or cannot be read."""
    structure: tuple[str, ...] = ()
    """Where its architecture is not the original's."""
    kinship: Kinship | None = None
    """Its weights against the original's; None where something before failed."""
    descent: Descent | None = None
    """The quantized weights against it; None where something before failed."""
    descent_of_original: Descent | None = None
    """The quantized weights against the original; None where something before failed."""

    @property
    def fault(self) -> tuple[Fault, str] | None:
        """The first thing that denies the claim, and in words; None where the bytes bear it out."""
        return self._by_itself() or self._against_the_original() or self._against_the_rounding()

    def _by_itself(self) -> tuple[Fault, str] | None:
        """What needs no comparison of weights."""
        if self.model is None:
            return "unregistered", f"The checkpoint {self.uri} is no registered version whose files can be read here."
        if self.model.weights != self.claimed:
            return "other-weights", f"{self.uri} holds other weights than those that the training statement names."
        if self.model.weights == self.original:
            return "original", f"The checkpoint {self.uri} is the original itself: nothing was trained."
        if self.model.quantization.is_quantized:
            return "quantized", f"The checkpoint {self.uri} is itself quantized: it holds no latent weights."
        if ON_GRID in self.model.quantization.warnings:
            seen = "a quantized model written back as floats, not latent weights"
            return "on-grid", f"The weights of the checkpoint {self.uri} lie on a k-bit grid: {seen}."
        if self.structure:
            return "structure", f"The checkpoint {self.uri} is not built as the original: {self.structure[0]}"
        return None

    def _against_the_original(self) -> tuple[Fault, str] | None:
        found = self.kinship
        if found is None or found.problem is not None or found.farthest is None:
            problem = found.problem if found else "Nobody compared them."
            return "stranger", f"The checkpoint {self.uri} is not shown to come from the original: {problem}"
        if not found.holds:
            least = found.farthest
            said = f"{least.name} correlates with the original's by {least.correlation:.2f}, training leaves {KIN:g} and more"
            return "stranger", f"The checkpoint {self.uri} does not come from the original: {said}."
        if not found.distance:
            return "original", f"The checkpoint {self.uri} holds the original's very numbers: nothing was trained."
        return None

    def _against_the_rounding(self) -> tuple[Fault, str] | None:
        if self.descent is None or not self.descent.holds:
            refuted = self.descent is not None and self.descent.verdict == "refuted"
            said = self.descent.reason if self.descent else "Nobody compared them."
            if refuted:
                return "other-rounding", f"The quantized weights are not the rounding of the checkpoint {self.uri}: {said}"
            return "unproved-rounding", (
                f"The quantized weights are not shown to be the rounding of the checkpoint {self.uri}: {said}"
            )
        if self.descent_of_original is None or self.descent_of_original.holds:
            return "untrained", (
                "The quantized weights are the original's own, rounded: what was trained left no trace in them."
            )
        return None


def examine(
    named: Checkpoint,
    original: ModelFacts,
    kinship: Callable[[], Kinship],
    descent: Callable[[], Descent],
    descent_of_original: Callable[[], Descent],
) -> Checkpoint:
    """Compare a named checkpoint with the original and the quantized version, the cheapest question first.

    Args:
        named: The checkpoint as the statement names it, with its files where they could be read.
        original: The full-precision model that training is said to have begun with.
        kinship: Compares the checkpoint's weights with the original's; called only where nothing cheaper failed.
        descent: Compares the quantized weights with the checkpoint's.
        descent_of_original: Compares the quantized weights with the original's.

    Returns:
        What was found, up to the first fault.
    """
    if named.model is None:
        return named
    found = replace(named, structure=structure_problems(named.model.structure, original))
    if found._by_itself():
        return found
    found = replace(found, kinship=kinship())
    if found._against_the_original():
        return found
    found = replace(found, descent=descent())
    if found.descent is None or not found.descent.holds:
        return found
    return replace(found, descent_of_original=descent_of_original())


def with_checkpoint(lineage: Lineage, checkpoint: Checkpoint) -> Lineage:
    """The link through a trained checkpoint, where the weights are not the original's rounding and nothing denies it."""
    if lineage.level != "structure" or checkpoint.fault is not None:
        return lineage
    return replace(lineage, level="numeric", problems=(), descent=checkpoint.descent, through=checkpoint)

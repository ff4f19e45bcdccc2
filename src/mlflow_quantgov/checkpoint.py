"""The trained checkpoint between an original and a quantized version: original, training, rounding, each from the bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from mlflow_quantgov.artifact.derivation.descent import Descent, LayerDescent
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
    least_bits: float = 0.0
    """Width below which every matrix has to have been trained."""

    @property
    def named(self) -> tuple[str, str]:
        """Where it is registered and which weights it holds, as the statement says: what tells two of them apart."""
        return self.uri, self.claimed

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
                return (
                    "other-rounding",
                    f"The quantized weights are not the rounding of the checkpoint {self.uri}: {said}",
                )
            return "unproved-rounding", (
                f"The quantized weights are not shown to be the rounding of the checkpoint {self.uri}: {said}"
            )
        return self._without_trace(self.descent)

    def _without_trace(self, rounding: Descent) -> tuple[Fault, str] | None:
        """Training has to show in every narrow matrix: one that the original's own rounds to was only quantized."""
        other = self.descent_of_original
        if other is None or not other.layers:
            said = other.reason if other else "Nobody compared them."
            return "untrained", f"Whether the quantized weights are the original's own, rounded, cannot be told: {said}"
        mine = {one.name: one for one in rounding.layers}
        narrow = [one for one in other.layers if one.bits is not None and one.bits < self.least_bits]
        same = [one for one in narrow if not _shows(one, mine.get(one.name))]
        if same:
            seen = f", which would show a change of {same[0].resolution:.2%}" if same[0].resolution is not None else ""
            return "untrained", (
                f"{len(same)} of {len(narrow)} matrices below {self.least_bits:g} bit are the original's own, rounded, as far "
                f"as their codes tell ({same[0].name}{seen}): what was trained left no trace in them."
            )
        if not narrow and other.holds:
            said = "what was trained left no trace in them"
            return "untrained", f"The quantized weights are the original's own, rounded: {said}."
        return None


def _shows(original: LayerDescent, checkpoint: LayerDescent | None) -> bool:
    """Whether a matrix is shown not to be the original's, rounded.

    Either it does not fit the original, or clearly more of the original's weights lie outside their cells than of the
    checkpoint's: more than chance, counted as in a Poisson process, gives to two equal counts in thirty thousand cases.
    """
    if original.problem is not None:
        return True
    if checkpoint is None or not original.trace == checkpoint.trace == "rounded":
        return False
    there, here = original.outside * original.weights, checkpoint.outside * checkpoint.weights
    return there - here > 4 * math.sqrt(max(there + here, 1.0)) + 1


def examine(
    named: Checkpoint,
    original: ModelFacts,
    kinship: Callable[[], Kinship],
    descent: Callable[[], Descent],
    descent_of_original: Callable[[], Descent],
    *,
    least_bits: float = 0.0,
) -> Checkpoint:
    """Compare a named checkpoint with the original and the quantized version, the cheapest question first.

    Args:
        named: The checkpoint as the statement names it, with its files where they could be read.
        original: The full-precision model that training is said to have begun with.
        kinship: Compares the checkpoint's weights with the original's; called only where nothing cheaper failed.
        descent: Compares the quantized weights with the checkpoint's.
        descent_of_original: Compares the quantized weights with the original's.
        least_bits: Width below which every matrix has to have been trained.

    Returns:
        What was found, up to the first fault.
    """
    if named.model is None:
        return named
    found = replace(named, structure=structure_problems(named.model.structure, original), least_bits=least_bits)
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
    found = checkpoint.descent
    assert found is not None
    told = replace(found, reason=found.reason.replace("the parent", "the checkpoint"))
    return replace(lineage, level="numeric", problems=(), descent=told, through=checkpoint, direct=lineage)

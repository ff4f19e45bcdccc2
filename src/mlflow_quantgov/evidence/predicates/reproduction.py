"""That the recorded recipe, run again on the parent, gives the same bytes; or where they differ."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.weights import WeightPart, weights_digest
from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Digest, Predicate, Record, ShortText
from mlflow_quantgov.evidence.predicates.benchmark import Fingerprint


class MadePart(Record):
    """A tensor (or a file of weights) that the second run made."""

    name: ShortText
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    dtype: ShortText | None = None
    """Storage type; None for a file."""
    shape: tuple[int, ...] = Field((), max_length=32)


class Difference(Record):
    """One part that is not the same in both."""

    name: ShortText
    problem: ShortText
    """In words: missing, of another shape, or how many bytes differ."""


class Reproduction(Predicate):
    """A second run of a recipe. Subject: the quantized model's weights."""

    KIND: ClassVar[str] = "reproduction"

    weights: Digest
    """Of the quantized version."""
    parent: Digest
    """Weights digest of the model that was quantized again."""
    recipe: Recipe
    ran_version: ShortText
    """Version of the quantizer in the second run."""
    machine: Fingerprint
    """Where it ran: sums of floating-point numbers depend on the processor and on the number of threads."""
    made: tuple[MadePart, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    """Everything that it made; the digest over all of it is recomputed from here."""
    differences: tuple[Difference, ...] = Field((), max_length=MAX_ITEMS)
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """`pass` only if the recipe's own version made the very weights digest."""
        made = weights_digest(WeightPart(one.name, one.sha256, one.dtype, one.shape) for one in self.made)
        same = made == self.weights and self.ran_version == self.recipe.version
        return {
            "outcome": "pass" if same and not self.differences else "fail",
            "weights": made,
            "parts": len(self.made),
            "different": len(self.differences),
        }

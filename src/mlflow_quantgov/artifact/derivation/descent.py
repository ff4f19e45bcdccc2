"""What a comparison of a quantized model with its parent finds: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["proved", "unproved", "refuted"]
Trace = Literal["rounded", "compensated", "unchanged", "none"]


@dataclass(frozen=True)
class LayerDescent:
    """One weight tensor against the parent's."""

    name: str
    """Hugging Face's spelling."""
    kind: str
    """Storage type of the quantized model (`gptq`, `Q4_K`, `F16`)."""
    bits: float | None
    """None where it was not quantized."""
    group_size: int | None
    weights: int
    relative_error: float
    """Frobenius norm of the difference over that of the parent's matrix, after folded scales were taken back."""
    reachable_error: float | None
    """The same, were every weight of the parent rounded to the nearest level of this very grid."""
    sqnr_db: float | None
    """Signal to quantization noise, 20 log10(1 / relative_error); None where nothing differs."""
    outside: float
    """Share of the parent's weights that lie outside the cell of their code; of the first column where errors were
    compensated; of unequal numbers where nothing was quantized."""
    by_chance: float | None
    """The share outside for neurons that do not belong together: what another model would show."""
    resolution: float | None
    """Smallest change of the parent, relative to its norm, that would have been noticed here."""
    trace: Trace
    """What it shows: plain rounding; rounding with compensation; unquantized and unchanged; none of these."""
    problem: str | None = None
    """Why it does not fit, or cannot be compared."""


@dataclass(frozen=True)
class Descent:
    """Whether the quantized model comes from the parent."""

    verdict: Verdict
    """`refuted`: another model. `unproved`: as near as the bits allow, but nothing excludes a changed parent."""
    reason: str
    layers: tuple[LayerDescent, ...]
    cast: str
    """Type that the quantizer held the parent in: `as stored`, `bfloat16` or `float16`."""
    resolution: float | None
    """Largest of the layers' resolutions: no matrix of the parent can have been changed by more than this, evenly over its
    weights; where errors were compensated, over those of all matrices with the same input."""

    @property
    def holds(self) -> bool:
        """Whether the lineage level `numeric` holds."""
        return self.verdict == "proved"

    @property
    def limit(self) -> str | None:
        """In words, up to which change of the parent the comparison sees nothing; None where that is not known."""
        if self.resolution is None:
            return None
        # In a few rows, or where GPTQ leaves one column to speak for all, a larger change can hide.
        return (
            f"a change of the parent by {100 * self.resolution:.2g} %, spread evenly over its weights, would have shown"
        )

    @property
    def worst(self) -> tuple[LayerDescent, ...]:
        """Layers that do not fit, then those with the largest relative error; ten at most."""
        order = sorted(self.layers, key=lambda one: (one.problem is None, -one.relative_error))
        return tuple(order[:10])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

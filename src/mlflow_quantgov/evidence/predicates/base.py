"""What every predicate shares: where it came from, and that its summary follows from its records."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from mlflow_quantgov.errors import EvidenceError

TYPE_BASE = "https://mlflow-quantgov.github.io/predicates"
MAX_ITEMS = 200_000


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
ShortText = Annotated[str, Field(max_length=1000)]


class Record(BaseModel):
    """A frozen part of a predicate; unknown keys are errors, since nobody would judge them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Provenance(Record):
    """Who measured, when, with what."""

    measured_at: AwareDatetime
    """UTC."""
    tool: ShortText = "mlflow-quantgov"
    tool_version: ShortText
    libraries: dict[str, str] = Field(default_factory=dict)
    """Distribution name to version, of whatever took part in the measurement."""
    imported: bool = False
    """True where the records were made elsewhere, so that nobody saw those bytes run."""


class Side(Record):
    """One of the two models of a comparison, and how it was run."""

    weights: Digest
    """Weights digest of the model that was measured."""
    behaviour: Digest | None = None
    """Digest of whatever else decides its answers: configuration, tokenizer, chat template, GGUF metadata."""
    runtime: ShortText
    version: ShortText
    twin: ShortText = "own-files"
    """`own-files`, `lossless-twin`, or `converted` (a confounder, and shown as one)."""
    kernel: ShortText | None = None
    dequantized: bool | None = None
    """Whether the runtime expanded the weights, so that nothing quantized ran; None where nobody could see."""
    settings: dict[str, Any] = Field(default_factory=dict)


class Predicate(Record):
    """Content of a statement: records, and a summary that anyone can recompute from them."""

    KIND: ClassVar[str]
    VERSION: ClassVar[int] = 1

    provenance: Provenance

    @classmethod
    def type_uri(cls) -> str:
        """Versioned type URI of this kind."""
        return f"{TYPE_BASE}/{cls.KIND}/v{cls.VERSION}"

    @classmethod
    def measured(cls, **records: Any) -> Self:
        """Build a predicate from its records, with the summary that they give."""
        draft = cls(**records, summary={})  # type: ignore[call-arg]  # every kind declares `summary`
        return draft.model_copy(update={"summary": draft.recompute()})

    @abstractmethod
    def recompute(self) -> dict[str, Any]:
        """The summary that the records give, in plain JSON types."""

    def stated(self) -> dict[str, Any]:
        """The summary that the statement carries."""
        return dict(getattr(self, "summary", {}))

    def verify_summary(self) -> None:
        """Refuse a statement that says what its records do not give.

        Raises:
            EvidenceError: A number of the summary differs by more than rounding.
        """
        difference = _first_difference(self.stated(), self.recompute(), "summary")
        if difference:
            raise EvidenceError(
                f"The {self.KIND} statement says {difference}.",
                why="A verdict is computed from per-item records, never from a summary that was sent along.",
                fix="Measure again and attach the statement unedited.",
            )


def _first_difference(stated: Any, computed: Any, where: str) -> str | None:
    """Words for the first place where two JSON values differ, or None."""
    if isinstance(stated, dict) and isinstance(computed, dict):
        for key in sorted(stated.keys() | computed.keys(), key=str):
            if key not in stated or key not in computed:
                return f"{where}.{key} {'which its records do not give' if key in stated else 'nothing'}"
            found = _first_difference(stated[key], computed[key], f"{where}.{key}")
            if found:
                return found
        return None
    if isinstance(stated, list | tuple) and isinstance(computed, list | tuple):
        if len(stated) != len(computed):
            return f"{where} has {len(stated)} entries where its records give {len(computed)}"
        for index, (left, right) in enumerate(zip(stated, computed, strict=True)):
            found = _first_difference(left, right, f"{where}[{index}]")
            if found:
                return found
        return None
    if isinstance(stated, bool) or isinstance(computed, bool) or not isinstance(stated, int | float):
        return None if stated == computed else f"{where} = {stated!r} where its records give {computed!r}"
    if isinstance(computed, int | float) and math.isclose(stated, computed, rel_tol=1e-6, abs_tol=1e-9):
        return None
    return f"{where} = {stated!r} where its records give {computed!r}"

"""Which data the quantizer saw, and how like production it is."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Digest, Finite, Predicate, Record, ShortText

Share = Annotated[Finite, Field(ge=0)]


class DataRecord(Record):
    """A text file, by digest and size; the text itself stays where it is."""

    digest: Digest
    documents: int = Field(ge=0)
    characters: int = Field(ge=0)
    tokens: int | None = Field(None, ge=0)
    """Of the model's own tokenizer; None where none was at hand."""
    source: ShortText | None = None
    """What the author says it is."""
    license: ShortText | None = None


class Likeness(Record):
    """One test of likeness, with the records from which it is recomputed.

    `calibration` and `production` hold one number per document: out-of-fold scores of a classifier, whose estimate is the
    area under the ROC curve, or scores by a witness function, whose estimate is a squared discrepancy (evidence/likeness/).
    """

    name: ShortText
    calibration: tuple[Finite, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    production: tuple[Finite, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    threshold: Finite
    concentration: tuple[Share, Share] = (1.0, 1.0)
    """Of a squared discrepancy: largest variance along one direction, of calibration and of production, as shares of
    production's spread; the worst where it was not stated."""
    chance: Finite | None = Field(None, ge=0, le=1)
    """Share of relabelled samples that lie at least as far apart, where that was computed; decides nothing."""
    itself: Finite | None = None
    """Distance of random halves of production, where that was computed; decides nothing."""


class Calibration(Predicate):
    """Calibration data of one quantized model. Subject: its weights."""

    KIND: ClassVar[str] = "calibration"

    data: DataRecord
    production: DataRecord | None
    generic_set: ShortText | None = None
    """Name of the generic set that the data was recognised as."""
    noted: tuple[ShortText, ...] = Field((), max_length=100)
    """Names of data sets in the artifact's own metadata, as its producer left them."""
    leaked_documents: int = Field(ge=0)
    """Calibration documents that are also evaluation items."""
    searched_tasks: Digest | None = None
    """Digest of the task folder whose items were looked for; None where nobody looked."""
    shared_with_production: int = Field(ge=0)
    likeness: tuple[Likeness, ...] = Field((), max_length=20)
    expectations: dict[str, Any] = Field(default_factory=dict)
    most_different: tuple[dict[str, Any], ...] = ()
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Outcome and estimate of each test, recomputed from the per-document scores."""
        from mlflow_quantgov.evidence.likeness import judge, overall

        family = max(1, len(self.likeness))
        tests = [
            judge(
                test.name,
                test.calibration,
                test.production,
                test.threshold,
                family=family,
                concentration=test.concentration,
            )
            for test in self.likeness
        ]
        known_fault = self.generic_set or self.leaked_documents or self.shared_with_production
        return {"outcome": "fail" if known_fault else overall(tests), "tests": tests}

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if len({test.name for test in self.likeness}) != len(self.likeness):
            raise ValueError("a test of likeness is named twice")
        return self

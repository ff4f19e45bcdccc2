"""Which data the quantizer saw, and how like production it is."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Digest, Finite, Predicate, Record, ShortText


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

    `calibration` and `production` hold one number per document (out-of-fold classifier scores, say). The estimate is
    the area under the ROC curve between them, and its bounds follow from the same numbers (see evidence/likeness.py).
    """

    name: ShortText
    calibration: tuple[Finite, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    production: tuple[Finite, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    threshold: Finite


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
    likeness: tuple[Likeness, ...] = ()
    expectations: dict[str, Any] = Field(default_factory=dict)
    most_different: tuple[dict[str, Any], ...] = ()
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Outcome and estimate of each test, recomputed from the per-document scores."""
        from mlflow_quantgov.evidence.likeness import judge

        tests = [judge(test.name, test.calibration, test.production, test.threshold) for test in self.likeness]
        return {"outcome": _outcome(self, tests), "tests": tests}


def _outcome(record: Calibration, tests: list[dict[str, Any]]) -> Literal["pass", "fail", "inconclusive"]:
    """Fail on a known fault, else the worst test; nothing measured is inconclusive."""
    outcomes = {test["outcome"] for test in tests}
    known_fault = record.generic_set or record.leaked_documents or record.shared_with_production
    if known_fault or "fail" in outcomes:
        return "fail"
    if not tests or "inconclusive" in outcomes:
        return "inconclusive"
    return "pass"

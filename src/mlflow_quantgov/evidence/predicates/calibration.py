"""Which data the quantizer saw, and how like production it is."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Digest, Finite, Predicate, Record, ShortText

Share = Annotated[Finite, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
MAX_LAYERS = 5_000
MAX_DISTANCE = 1e4
"""More than any kernel gives, whose spread is a thousandth at least."""
_ROUNDING = 1e-4
MAX_UNREPRESENTED = 0.1
"""Share of calibration's text, beyond production's own, that nothing was compared for and a pass allows."""


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
    unrepresented: float | None = Field(None, ge=0, le=1)
    """Share of the text that the compared documents do not stand for; None where nobody looked."""


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

    def judged(self, family: int) -> dict[str, Any]:
        """Estimate, bounds and outcome, as `likeness.judge` gives them for one of so many tests."""
        from mlflow_quantgov.evidence.likeness import judge

        return judge(
            self.name,
            self.calibration,
            self.production,
            self.threshold,
            family=family,
            concentration=self.concentration,
        )


class LayerRecord(Record):
    """One layer of the parent: how far apart its inputs are, and what rounding it costs on either side. Decides nothing."""

    name: ShortText
    distance: Finite = Field(ge=-MAX_DISTANCE, le=MAX_DISTANCE)
    """Squared discrepancy between what it reads on calibration and on production, as a share of production's spread."""
    calibration_error: Share | None = None
    """Squared error of its output over the squared output, ||X (W - Wq)^T||^2 / ||X W^T||^2, on calibration tokens; None
    where the quantized weights could not be set beside the parent's."""
    production_error: Share | None = None
    """The same on production tokens."""

    @property
    def ratio(self) -> float | None:
        """Error on production over error on calibration data; None where either is not known or zero."""
        return (
            self.production_error / self.calibration_error if self.calibration_error and self.production_error else None
        )


class Observation(Record):
    """How the parent's layers were observed. Pairs are calibration and production."""

    parent: Digest
    """Weights digest of the model that ran."""
    library: ShortText
    documents: tuple[Count, Count]
    tokens: tuple[Count, Count]
    tokens_of_errors: tuple[Count, Count]
    """Tokens on whose input vectors the errors were computed."""
    unwatched: int = Field(ge=0)
    """Quantized matrices that were not watched: the embedding, the output matrix, experts that read some tokens only."""


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
    searched: tuple[Digest, ...] = Field((), max_length=1000)
    """Digests of the single tasks whose items were looked for, where each has its own, as those that lm-eval ships."""
    shared_with_production: int = Field(ge=0)
    likeness: tuple[Likeness, ...] = Field((), max_length=20)
    observation: Observation | None = None
    layers: tuple[LayerRecord, ...] = Field((), max_length=MAX_LAYERS)
    """In the order in which they run. The mean of their distances is the estimate of the test `activations`."""
    unobserved: ShortText | None = None
    """Why the layers were not observed, where that was asked for."""
    expectations: dict[str, Any] = Field(default_factory=dict)
    most_different: tuple[dict[str, Any], ...] = ()
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Outcome and estimate of each test, recomputed from the per-document scores."""
        from mlflow_quantgov.evidence.likeness import overall

        tests = [test.judged(len(self.likeness)) for test in self.likeness]
        known_fault = self.generic_set or self.leaked_documents or self.shared_with_production
        outcome = "fail" if known_fault else overall(tests)
        return {"outcome": "inconclusive" if outcome == "pass" and self.unseen else outcome, "tests": tests}

    @property
    def unseen(self) -> float:
        """Share of the calibration text that the compared documents do not stand for, where it is too large; else 0."""
        found = 1.0 if self.data.unrepresented is None else self.data.unrepresented
        usual = (self.production.unrepresented or 0.0) if self.production else 0.0
        return found if found > usual + MAX_UNREPRESENTED else 0.0

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if len({test.name for test in self.likeness}) != len(self.likeness):
            raise ValueError("a test of likeness is named twice")
        return self

    @model_validator(mode="after")
    def _layers_give_the_test(self) -> Self:
        from mlflow_quantgov.evidence.likeness import ACTIVATIONS
        from mlflow_quantgov.evidence.likeness.discrepancy import estimate_and_error

        if len({layer.name for layer in self.layers}) != len(self.layers):
            raise ValueError("a layer is named twice")
        test = next((one for one in self.likeness if one.name == ACTIVATIONS), None)
        if self.layers and (test is None or min(len(test.calibration), len(test.production)) < 4):
            raise ValueError("layers are stated without the test that they give")
        if self.layers and test is not None:
            mean = sum(layer.distance for layer in self.layers) / len(self.layers)
            estimate, _ = estimate_and_error(test.calibration, test.production)
            if abs(mean - estimate) > _ROUNDING * max(1.0, abs(estimate)):
                raise ValueError("the mean of the layers' distances is not what the test gives")
        return self

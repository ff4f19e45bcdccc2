"""Every kind recomputes its summary from its own records, and an edited record no longer matches it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.likeness import CLASSIFIER, MEANING, STANDARDS, SURFACE
from mlflow_quantgov.evidence.predicates import (
    PREDICATES,
    Calibration,
    DataRecord,
    DocumentRecord,
    Fidelity,
    Likeness,
    Provenance,
    Side,
    TaskEval,
    kind_of_type,
    predicate_class,
)

DIGEST = "sha256:" + "a" * 64
SIDE = Side(weights=DIGEST, runtime="r", version="1")


def document(**changes: Any) -> DocumentRecord:
    values = {
        "id": DIGEST,
        "tokens": 10,
        "parent_nll": 20.0,
        "quantized_nll": 22.0,
        "kl": 1.0,
        "kl_max": 0.5,
        "same_top": 9,
        "identical": 0,
    }
    return DocumentRecord(**(values | changes))


def calibration(provenance: Provenance, **changes: Any) -> Calibration:
    even, flat = tuple((n + 0.5) / 100 for n in range(100)), (0.01, -0.01) * 50
    scores = {SURFACE: flat, MEANING: flat, CLASSIFIER: even}
    values: dict[str, Any] = {
        "provenance": provenance,
        "data": DataRecord(digest=DIGEST, documents=100, characters=1000),
        "production": DataRecord(digest=DIGEST, documents=100, characters=1000),
        "leaked_documents": 0,
        "shared_with_production": 0,
        "likeness": tuple(
            Likeness(
                name=name,
                calibration=side,
                production=side,
                threshold=STANDARDS[name].threshold,
                concentration=(0.05, 0.05),
            )
            for name, side in scores.items()
        ),
    }
    return Calibration.measured(**(values | changes))


def test_kinds_and_types_name_each_other() -> None:
    for kind, predicate in PREDICATES.items():
        assert kind_of_type(predicate.type_uri()) == kind
        assert predicate_class(predicate.type_uri()) is predicate


def test_task_means_and_flips(task_eval: Callable[..., TaskEval]) -> None:
    summary = task_eval([1, 1, 0, 0], [1, 0, 1, 0]).summary["t"]
    assert (summary["parent_mean"], summary["quantized_mean"]) == (0.5, 0.5)
    assert (summary["lost"], summary["gained"], summary["items"]) == (1, 1, 4)


def test_fidelity_is_weighted_by_tokens(provenance: Provenance) -> None:
    documents = (document(), document(tokens=30, parent_nll=30.0, quantized_nll=30.0, kl=0.0, same_top=30))
    found = Fidelity.measured(
        provenance=provenance, parent=SIDE, quantized=SIDE, data=DIGEST, settings={}, documents=documents
    )
    assert math.isclose(found.summary["parent_perplexity"], math.exp(50 / 40))
    assert math.isclose(found.summary["kl_mean"], 1 / 40)
    assert math.isclose(found.summary["same_top_rate"], 39 / 40)
    edited = found.model_copy(update={"documents": (document(kl=0.9), documents[1])})
    with pytest.raises(EvidenceError, match="kl_mean"):
        edited.verify_summary()


def test_a_hopeless_perplexity_stays_a_number(provenance: Provenance) -> None:
    found = Fidelity.measured(
        provenance=provenance, parent=SIDE, quantized=SIDE, data=DIGEST, settings={},
        documents=(document(quantized_nll=1e9),),
    )  # fmt: skip
    assert math.isfinite(found.summary["quantized_perplexity"])


def test_like_data_passes(provenance: Provenance) -> None:
    assert calibration(provenance).summary["outcome"] == "pass"


@pytest.mark.parametrize("fault", [{"generic_set": "wikitext"}, {"leaked_documents": 1}, {"shared_with_production": 1}])
def test_a_known_fault_fails_whatever_the_likeness(provenance: Provenance, fault: dict[str, Any]) -> None:
    assert calibration(provenance, **fault).summary["outcome"] == "fail"


def test_likeness_that_was_not_measured_never_passes(provenance: Provenance) -> None:
    assert calibration(provenance, likeness=()).summary["outcome"] == "inconclusive"


@pytest.mark.parametrize("lacking", [SURFACE, MEANING, CLASSIFIER])
def test_a_view_that_is_lacking_never_passes(provenance: Provenance, lacking: str) -> None:
    whole = calibration(provenance)
    assert whole.summary["outcome"] == "pass"
    others = tuple(test for test in whole.likeness if test.name != lacking)
    assert calibration(provenance, likeness=others).summary["outcome"] == "inconclusive"


def test_a_test_stands_once(provenance: Provenance) -> None:
    whole = calibration(provenance)
    with pytest.raises(ValidationError, match="named twice"):
        calibration(provenance, likeness=whole.likeness[:1] * 2)


def test_an_outcome_that_the_scores_do_not_give_is_refused(provenance: Provenance) -> None:
    apart = Likeness(name="t", calibration=(1.0,) * 100, production=(0.0,) * 100, threshold=0.7)
    failed = calibration(provenance, likeness=(apart,))
    assert failed.summary["outcome"] == "fail"
    lied = failed.model_copy(update={"summary": calibration(provenance).summary})
    with pytest.raises(EvidenceError, match="its records give"):
        lied.verify_summary()


def test_a_looser_threshold_in_the_record_changes_nothing(provenance: Provenance) -> None:
    apart = Likeness(name="t", calibration=(1.0,) * 100, production=(0.0,) * 100, threshold=1.0)
    assert calibration(provenance, likeness=(apart,)).summary["outcome"] == "fail"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(number: float) -> None:
    with pytest.raises(ValidationError):
        document(kl=number)
    with pytest.raises(ValidationError):
        Likeness(name="t", calibration=(number,), production=(0.0,), threshold=0.7)

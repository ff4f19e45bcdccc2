"""Every kind recomputes its summary from its own records, and an edited record no longer matches it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.likeness import CLASSIFIER, MEANING, PHRASES, STANDARDS, SURFACE
from mlflow_quantgov.evidence.predicates import (
    PREDICATES,
    Calibration,
    DataRecord,
    DocumentRecord,
    Fidelity,
    FidelityV1,
    Likeness,
    Provenance,
    Side,
    TaskEval,
    kind_of_type,
    predicate_class,
)
from mlflow_quantgov.evidence.predicates.fidelity import KL_EDGES, DocumentRecordV1, kl_bin, kl_quantile
from mlflow_quantgov.evidence.statement import Statement, parse_statement

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
        "kl_counts": ((kl_bin(0.0555), changes.get("tokens", 10) - 1), (kl_bin(0.5), 1)),
    }
    return DocumentRecord(**(values | changes))


def calibration(provenance: Provenance, **changes: Any) -> Calibration:
    even, flat = tuple((n + 0.5) / 100 for n in range(100)), (0.01, -0.01) * 50
    scores = {SURFACE: flat, MEANING: flat, CLASSIFIER: even, PHRASES: even}
    values: dict[str, Any] = {
        "provenance": provenance,
        "data": DataRecord(digest=DIGEST, documents=100, characters=1000, unrepresented=0.0),
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
    documents = (
        document(),
        document(tokens=30, parent_nll=30.0, quantized_nll=30.0, kl=0.0, kl_max=0.0, same_top=30, kl_counts=((0, 30),)),
    )
    found = Fidelity.measured(
        provenance=provenance, parent=SIDE, quantized=SIDE, data=DIGEST, settings={}, documents=documents
    )
    assert math.isclose(found.summary["parent_perplexity"], math.exp(50 / 40))
    assert math.isclose(found.summary["kl_mean"], 1 / 40)
    assert math.isclose(found.summary["same_top_rate"], 39 / 40)
    edited = found.model_copy(update={"documents": (document(kl=0.98), documents[1])})
    with pytest.raises(EvidenceError, match="kl_mean"):
        edited.verify_summary()


def fidelity(provenance: Provenance, *documents: DocumentRecord, **changes: Any) -> Fidelity:
    values = {"provenance": provenance, "parent": SIDE, "quantized": SIDE, "data": DIGEST, "settings": {}}
    return Fidelity.measured(**(values | {"documents": documents} | changes))


def test_version_1_of_fidelity_is_still_read(provenance: Provenance) -> None:
    old = DocumentRecordV1(**{key: value for key, value in document().model_dump().items() if key != "kl_counts"})
    made = FidelityV1.measured(
        provenance=provenance, parent=SIDE, quantized=SIDE, data=DIGEST, settings={}, documents=(old,)
    )
    read = parse_statement(Statement.about(DIGEST, made, name="m").to_bytes())
    assert (read.kind, read.predicate_type[-3:]) == ("fidelity", "/v1")
    content = read.content()
    assert type(content) is FidelityV1 and content.stated()["kl_mean"] == 0.1
    new = Statement.about(DIGEST, fidelity(provenance, document()), name="m")
    assert new.predicate_type.endswith("/v2") and type(parse_statement(new.to_bytes()).content()) is Fidelity


@given(st.lists(st.floats(0, 500), min_size=1, max_size=400), st.integers(1, 40))
def test_the_99th_percentile_is_within_its_stated_resolution(values: list[float], size: int) -> None:
    parts = [values[at : at + size] for at in range(0, len(values), size)]
    counts = [tuple(sorted(Counter(kl_bin(one) for one in part).items())) for part in parts]
    found = kl_quantile(counts, max(values))
    exact = sorted(values)[math.ceil(0.99 * len(values)) - 1]
    assert exact <= found <= max(exact * 1.0747, KL_EDGES[0]) or exact > KL_EDGES[-1]
    assert sum(one > found for one in values) <= 0.01 * len(values)


def test_the_worst_documents_are_named_by_digest_in_the_order_of_their_mean(provenance: Provenance) -> None:
    documents = [
        document(id=f"sha256:{n:064x}", kl=n / 10, kl_max=n / 100, kl_counts=((kl_bin(n / 100), 10),))
        for n in range(12)
    ]
    summary = fidelity(provenance, *documents).summary
    worst = summary["worst_documents"]
    assert [one["id"][-1] for one in worst] == ["b", "a", *(str(n) for n in range(9, 1, -1))]
    assert worst[0]["kl_mean"] == pytest.approx(0.11) and worst[0]["perplexity_ratio"] == pytest.approx(math.exp(0.2))


@pytest.mark.parametrize(
    ("identical", "tokens", "outcome"), [(1000, 1000, "fail"), (999, 999, None), (999, 1000, None)]
)
def test_quantization_that_never_engaged_is_the_only_outcome(
    provenance: Provenance, identical: int, tokens: int, outcome: str | None
) -> None:
    equal = document(tokens=tokens, identical=identical, same_top=tokens, kl=0.0, kl_max=0.0, kl_counts=((0, tokens),))
    assert fidelity(provenance, equal).summary["outcome"] == outcome


@pytest.mark.parametrize(
    "changes",
    [
        {"kl": -1.0},
        {"same_top": 11},
        {"identical": 11},
        {"kl_counts": ()},
        {"kl_counts": ((0, 10),)},
        {"kl_counts": ((kl_bin(0.5), 1),)},
        {"kl_counts": ((kl_bin(0.5), 9), (kl_bin(0.5), 1))},
        {"kl_counts": ((kl_bin(0.5), 1), (kl_bin(0.0555), 9))},
        {"kl_counts": ((kl_bin(0.0555), 10), (kl_bin(0.5), 0))},
        {"kl_counts": ((-1, 9), (kl_bin(0.5), 1))},
        {"kl_counts": ((kl_bin(0.0555), 9), (258, 1))},
        {"kl": 0.05},
        {"kl": 4.9},
        {"kl_max": 0.6},
    ],
)
def test_a_spread_that_cannot_give_the_sums_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        document(**changes)


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


def test_compared_documents_must_stand_for_the_file(provenance: Provenance) -> None:
    def outcome(data: float | None, production: float | None) -> str:
        sides = {
            name: DataRecord(digest=DIGEST, documents=100, characters=1000, unrepresented=share)
            for name, share in (("data", data), ("production", production))
        }
        return str(calibration(provenance, **sides).summary["outcome"])

    assert outcome(0.1, 0.0) == outcome(0.5, 0.45) == "pass"
    assert outcome(None, None) == outcome(0.11, 0.0) == outcome(0.5, None) == outcome(0.5, 0.3) == "inconclusive"


def test_likeness_that_was_not_measured_never_passes(provenance: Provenance) -> None:
    assert calibration(provenance, likeness=()).summary["outcome"] == "inconclusive"


@pytest.mark.parametrize("lacking", [SURFACE, MEANING, CLASSIFIER, PHRASES])
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

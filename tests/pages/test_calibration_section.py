"""Calibration data in the report: counts and shares in rows of our own, whatever a statement from elsewhere holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mlflow_quantgov.artifact.quantization import Quantization, Structure
from mlflow_quantgov.evidence.predicates import Calibration, DataRecord, Provenance
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.lineage import ModelFacts
from mlflow_quantgov.pages.report import render_report
from mlflow_quantgov.policy.facts import Evidence, Facts

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGEST = f"sha256:{'a' * 64}"
RESULT = {"name": "personal-data: e-mail", "count": 1234, "share": 0.25, "threshold": 0.0, "outcome": "fail"}


def report(expectations: dict[str, Any], **changes: Any) -> str:
    values: dict[str, Any] = {
        "provenance": Provenance(measured_at=NOW, tool_version="1"),
        "data": DataRecord(digest=DIGEST, documents=300, characters=1000, tokens=54321, source="<b>ours</b>"),
        "production": None,
        "leaked_documents": 0,
        "shared_with_production": 7,
        "expectations": expectations,
    }
    content = Calibration.measured(**(values | changes))
    statement = Statement.about(DIGEST, content, name="m")
    plain = Quantization.from_dict(
        dict.fromkeys(Quantization.__dataclass_fields__)
        | {"format": "gptq", "bits": 4, "bits_per_weight": 4.5, "quantized_parameters": 1, "total_parameters": 1,
           "size_bytes": 1, "layers": (), "warnings": (), "calibration_data": ()}
    )  # fmt: skip
    facts = Facts(
        "chat", "2", "quantized", NOW, model=ModelFacts(DIGEST, DIGEST, DIGEST, plain, Structure("llama")),
        evidence=(Evidence(statement, content, statement.digest, "somebody", NOW),),
    )  # fmt: skip
    return render_report(facts, None, title="chat version 2")


def test_counts_are_shown_and_nothing_is_taken_for_markup() -> None:
    page = report({"evaluated": 1, "failed": ["x"], "results": [RESULT], "library": "great-expectations 1.5"})
    for words in ("Calibration data:", "54,321 tokens", "personal-data: e-mail", "1,234", "25.0%", "by somebody",
                  "nobody looked", "Judged by great-expectations 1.5", "no text left the machine"):  # fmt: skip
        assert words in page
    assert "<b>ours</b>" not in page
    page = report(
        {"evaluated": 0, "failed": [], "not_checked": "it is not installed"}, searched_tasks=DIGEST, noted=("c4",)
    )
    assert "Not checked: it is not installed" in page and "nobody looked" not in page and "c4" in page


@pytest.mark.parametrize(
    "results",
    [None, "text", 3, {"a": 1}, [1], [{"name": "x"}], [RESULT | {"share": "much"}], [RESULT | {"outcome": "<i>"}],
     [RESULT | {"count": 10**400}], [{**RESULT, "name": ["<i>"]}]],
)  # fmt: skip
def test_a_statement_from_elsewhere_may_hold_anything_there(results: Any) -> None:
    page = report({"results": results, "library": {"<i>": 1}, "not_checked": ["<i>"]})
    assert "Calibration data:" in page and "<i>" not in page

"""What the report shows of calibration data: counts and shares, in rows of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlflow_quantgov.evidence.likeness import STANDARDS, percentages
from mlflow_quantgov.evidence.predicates import Calibration
from mlflow_quantgov.pages.activations_plot import ActivationsSection, activations_section
from mlflow_quantgov.policy.facts import Facts

MAX_ROWS = 100


class Expectation(BaseModel):
    """One expectation and how many documents break it."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(max_length=100)
    count: int = Field(ge=0, le=10**9)
    share: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    outcome: Literal["pass", "fail"]


@dataclass(frozen=True)
class ViewRow:
    """One test of likeness, in words and percentages."""

    name: str
    words: str
    apart: str
    bounds: str
    threshold: str
    itself: str
    outcome: str
    needed: int | None


@dataclass(frozen=True)
class CalibrationSection:
    """The newest calibration statement as people read it."""

    content: Calibration
    outcome: str
    actor: str | None
    tests: tuple[ViewRow, ...]
    activations: ActivationsSection | None
    expectations: tuple[Expectation, ...]
    library: str
    not_checked: str


def calibration_section(facts: Facts) -> CalibrationSection | None:
    """The section on calibration data; None where none is recorded for this version."""
    found = [one for one in facts.of_kind("calibration") if isinstance(one.content, Calibration)]
    if not found:
        return None
    content = found[-1].content
    assert isinstance(content, Calibration)
    said, summary = content.expectations, content.recompute()
    return CalibrationSection(
        content,
        str(summary["outcome"]),
        found[-1].actor,
        tuple(_view(test, one.itself) for test, one in zip(summary["tests"], content.likeness, strict=True)),
        activations_section(content),
        tuple(_rows(said.get("results"))),
        str(said.get("library", ""))[:100],
        str(said.get("not_checked", ""))[:200],
    )


def _view(test: dict[str, Any], itself: float | None) -> ViewRow:
    area, said = test["statistic"] == "area-under-curve", percentages(test)
    standard = STANDARDS.get(test["name"])
    return ViewRow(
        name=test["name"],
        words=standard.words if standard else "a test from elsewhere",
        apart=said["estimate"],
        bounds=f"{said['lower']} to {said['upper']}",
        threshold=said["threshold"],
        itself="50.0%" if area else "" if itself is None else f"{max(itself, 0.0):.1%}",
        outcome=test["outcome"],
        needed=test["documents_needed"],
    )


def _rows(results: Any) -> list[Expectation]:
    """Rows that are what they should be: a statement from elsewhere may hold anything there."""
    rows = []
    for one in results[:MAX_ROWS] if isinstance(results, list | tuple) else ():
        with suppress(ValidationError):
            rows.append(Expectation.model_validate(one))
    return rows

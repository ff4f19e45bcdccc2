"""The level `reproduced`: a second run that gave the same bytes, from this very parent, and not against the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.weights import WeightPart, weight_parts, weights_digest
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates import Difference, MadePart, Reproduction
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.flavor.layout import LINEAGE_FILE
from mlflow_quantgov.pages.report import render_report


@pytest.fixture
def release(gated: Any, logged: Callable[..., str], tmp_path: Path) -> Any:
    """Makes a store that demands a level, with a quantized version of a parent."""

    def make(level: str, child: str = "gptq-w4g32", parent: str = "parent-bf16") -> Any:
        store = gated(level)
        store.create_model_version("parents", logged(tmp_path / "parent", parent, None))
        store.create_model_version("chat", logged(tmp_path / "child", child, tmp_path / "parent"))
        return store

    return make


def attach(store: Any, child: Path, *, parent: str | None = None, differs: bool = False, bits: int = 4) -> None:
    """Attach a second run's statement; it really gave these bytes unless `differs`."""
    facts = store.quantgov_facts("chat", "1")
    parts = [MadePart(name=p.name, sha256=p.sha256, dtype=p.dtype, shape=p.shape) for p in weight_parts(child)]
    differences: tuple[Difference, ...] = ()
    if differs:
        parts[0] = parts[0].model_copy(update={"sha256": "0" * 64})
        differences = (Difference(name=parts[0].name, problem="3 of 64 bytes differ (4.7 %)"),)
    content = Reproduction.measured(
        provenance=provenance(),
        weights=facts.model.weights,
        parent=parent or facts.lineage.parent.weights,
        recipe=Recipe(quantizer="gptqmodel", version="7.6.0", arguments={"bits": bits}),
        ran_version="7.6.0",
        machine=this_machine(),
        made=tuple(parts),
        differences=differences,
    )
    store.quantgov_take_in("chat", "1", Statement.about(facts.model.weights, content, name="chat").to_bytes())


def test_without_a_second_run_the_command_is_named(release: Any) -> None:
    (check,) = release("reproduced").quantgov_check("chat", "1", "@champion").checks
    assert (check.outcome, check.fix) == ("missing", "quantgov reproduce models:/chat/1")


def test_the_same_bytes_reach_the_level_and_the_report_shows_the_recipe(release: Any, tmp_path: Path) -> None:
    store = release("reproduced")
    attach(store, tmp_path / "child" / "model")
    facts, decision = store.quantgov_facts("chat", "1"), store.quantgov_check("chat", "1", "@champion")
    assert decision.allowed and facts.lineage.level == "reproduced"
    assert "self-reported: reproduction" in decision.labels
    page = render_report(facts, decision, title="chat version 1")
    assert "the same bytes" in page and "gptqmodel 7.6.0" in page


def test_other_bytes_refuse_and_the_report_says_where(release: Any, tmp_path: Path) -> None:
    store = release("reproduced")
    attach(store, tmp_path / "child" / "model", differs=True)
    facts, decision = store.quantgov_facts("chat", "1"), store.quantgov_check("chat", "1", "@champion")
    assert not decision.allowed and facts.lineage.level == "numeric"
    assert "gave 1 of" in decision.checks[0].reason
    assert "3 of 64 bytes differ" in render_report(facts, decision, title="chat version 1")


def test_a_later_run_that_differs_takes_the_level_away(release: Any, tmp_path: Path) -> None:
    store = release("reproduced")
    attach(store, tmp_path / "child" / "model")
    attach(store, tmp_path / "child" / "model", differs=True)
    assert not store.quantgov_check("chat", "1", "@champion").allowed


def test_another_recipe_that_makes_something_else_takes_nothing_away(release: Any, tmp_path: Path) -> None:
    store = release("reproduced")
    attach(store, tmp_path / "child" / "model")
    attach(store, tmp_path / "child" / "model", differs=True, bits=8)
    assert store.quantgov_check("chat", "1", "@champion").allowed


def test_a_run_from_another_parent_says_nothing(release: Any, tmp_path: Path) -> None:
    store = release("reproduced")
    attach(store, tmp_path / "child" / "model", parent="sha256:" + "c" * 64)
    assert store.quantgov_check("chat", "1", "@champion").checks[0].outcome == "missing"


def test_a_claimed_run_does_not_stand_against_the_weights(release: Any, tmp_path: Path) -> None:
    """ct-w8a8 is no rounding of these weights, whatever a statement says."""
    store = release("reproduced", "ct-w8a8", "dequantized-bf16")
    attach(store, tmp_path / "child" / "model")
    decision = store.quantgov_check("chat", "1", "@champion")
    assert not decision.allowed
    assert "the weights themselves deny it" in decision.checks[0].reason


@pytest.mark.parametrize("level", ["numeric", "reproduced"])
def test_a_claimed_run_does_not_stand_in_for_a_comparison(release: Any, tmp_path: Path, level: str) -> None:
    """Both models round to those codes, so that nothing is proved: copying their digests proves no more."""
    store = release(level, "gptq-w4g32-desc", "dequantized-bf16")
    attach(store, tmp_path / "child" / "model")
    facts = store.quantgov_facts("chat", "1")
    assert facts.lineage.descent.verdict == "unproved" and facts.lineage.level == "structure"
    (check,) = store.quantgov_check("chat", "1", "@champion").checks
    assert check.outcome == "fail" and f"{level} is demanded" in check.reason


def test_where_a_recipe_was_recorded_no_other_counts(release: Any, tmp_path: Path) -> None:
    store = release("reproduced")
    attach(store, tmp_path / "child" / "model")
    place = tmp_path / "child" / LINEAGE_FILE
    record = json.loads(place.read_text())
    for bits, outcome in ((4, "pass"), (8, "missing")):
        record["recipe"] = {"quantizer": "gptqmodel", "version": "7.6.0", "arguments": {"bits": bits}}
        place.write_text(json.dumps(record))
        assert store.quantgov_check("chat", "1", "@champion").checks[0].outcome == outcome


def test_a_run_in_another_version_is_none_of_the_recipe() -> None:
    part = MadePart(name="a", sha256="0" * 64, dtype="F16", shape=(1,))
    content = Reproduction.measured(
        provenance=provenance(),
        weights=weights_digest([WeightPart("a", "0" * 64, "F16", (1,))]),
        parent="sha256:" + "b" * 64,
        recipe=Recipe(quantizer="gptqmodel", version="7.6.0"),
        ran_version="7.7.0",
        machine=this_machine(),
        made=(part,),
    )
    assert content.stated()["outcome"] == "fail"

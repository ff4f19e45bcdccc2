"""The gate compares weights where its policy demands it, and only there; the report shows every layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.gate.facts import descent
from mlflow_quantgov.pages.report import render_report


def test_a_quantized_version_of_its_parent_is_proved_by_its_weights(
    gated: Any, logged: Callable[..., str], tmp_path: Path
) -> None:
    store = gated("numeric")
    store.create_model_version("parents", logged(tmp_path / "parent", "parent-bf16", None))
    store.create_model_version("chat", logged(tmp_path / "child", "gptq-w4g32", tmp_path / "parent"))
    facts = store.quantgov_facts("chat", "1")
    assert facts.lineage is not None and facts.lineage.level == "numeric"
    decision = store.quantgov_check("chat", "1", "@champion")
    assert decision.allowed
    assert decision.checks[0].numbers["resolution"] < 0.01
    page = render_report(facts, decision, title="chat version 1")
    assert "proved up to <strong>numeric</strong>" in page
    assert "model.layers.0.mlp.down_proj.weight" in page and 'aria-label="Relative error' in page


def test_a_version_of_another_parent_is_refused_with_the_layer(
    gated: Any, logged: Callable[..., str], tmp_path: Path
) -> None:
    store = gated("numeric")
    store.create_model_version("parents", logged(tmp_path / "parent", "dequantized-bf16", None))
    store.create_model_version("chat", logged(tmp_path / "child", "ct-w8a8", tmp_path / "parent"))
    facts = store.quantgov_facts("chat", "1")
    assert facts.lineage is not None and facts.lineage.level == "structure"
    assert facts.lineage.descent is not None and not facts.lineage.descent.holds
    decision = store.quantgov_check("chat", "1", "@champion")
    assert not decision.allowed
    assert "Proved up to structure, numeric is demanded" in decision.checks[0].reason
    assert "_proj.weight" in decision.checks[0].reason
    page = render_report(facts, decision, title="chat version 1")
    assert 'class="fail"' in page and "do not round to its codes" in page


def test_weights_are_compared_once_and_only_where_demanded(
    gated: Any, logged: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = descent.compare
    monkeypatch.setattr(descent, "compare", lambda *paths: seen.append(paths) or real(*paths))
    parent = logged(tmp_path / "parent", "parent-bf16", None)
    child = logged(tmp_path / "child", "gptq-w4g32", tmp_path / "parent")
    for level, comparisons in (("structure", 0), ("numeric", 1)):
        store = gated(level)
        store.create_model_version("parents", parent)
        store.create_model_version("chat", child)
        for _ in range(3):
            assert store.quantgov_check("chat", "1", "@champion").allowed
        assert len(seen) == comparisons


def test_files_that_break_while_they_are_compared_prove_nothing(tmp_path: Path) -> None:
    descent._made.clear()
    found = descent.descent_of("sha256:1", tmp_path / "gone", "sha256:2", tmp_path)
    assert found.verdict == "unproved"
    assert "could not be compared" in found.reason
    assert not descent._made

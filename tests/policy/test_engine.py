"""Policy files, names, and that nothing unmeasured passes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.errors import PolicyError
from mlflow_quantgov.policy.audit import QUESTIONS
from mlflow_quantgov.policy.engine import OWN, decide
from mlflow_quantgov.policy.facts import Facts
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.matching import destination_kind
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import CHECKS
from mlflow_quantgov.resources import policies_dir

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["default", "strict", "demo", "demo-quick"])
def test_shipped_policies_load(name: str) -> None:
    policy = load_policy(policies_dir() / f"{name}.yaml")
    assert policy.name == name
    assert policy.digest.startswith("sha256:")


def test_every_check_of_the_contract_exists() -> None:
    assert set(OWN) == set(CHECKS)


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("@champion", "gated"),
        ("@Champion", "gated"),
        ("@CHAMPION", "gated"),
        ("@ｃｈａｍｐｉｏｎ", "gated"),
        ("Production", "gated"),
        ("production", "gated"),
        ("@production", "gated"),
        ("Staging", "gated"),
        ("@candidate", "open"),
        ("None", "open"),
        ("Archived", "open"),
        ("@live", "refused"),
    ],
)
def test_the_default_policy_gates_what_it_says(destination: str, kind: str) -> None:
    assert destination_kind(load_policy(), "any-model", destination) == kind


@given(name=st.text(max_size=20))
def test_case_and_unicode_form_do_not_make_another_name(name: str) -> None:
    assert fold(fold(name)) == fold(name)
    assert fold(name.upper()) == fold(fold(name).upper()) or fold(name.upper()) == fold(name.casefold().upper())


@pytest.mark.parametrize("role", ["parent", "quantized", "unknown"])
@pytest.mark.parametrize("destination", ["@champion", "Production", "Staging", "@nobody-named-this"])
def test_without_evidence_nothing_passes(role: str, destination: str) -> None:
    decision = decide(load_policy(), Facts("m", "1", role, NOW), destination)  # type: ignore[arg-type]
    assert not decision.allowed
    assert decision.exit_code in {1, 3}


def test_other_models_pass_by_default_and_not_in_strict() -> None:
    facts = Facts("sklearn-model", "1", "other", NOW)
    assert decide(load_policy(), facts, "@champion").allowed
    assert not decide(load_policy(policies_dir() / "strict.yaml"), facts, "@champion").allowed


def test_the_five_questions_are_answered_in_order_and_say_not_measured() -> None:
    decision = decide(load_policy(), Facts("m", "1", "quantized", NOW), "@champion")
    assert [one.question for one in decision.self_audit] == [question for question, _ in QUESTIONS]
    assert all(one.answer == "no" for one in decision.self_audit)
    assert decision.self_audit[0].why.startswith("Not measured:")


def test_a_check_that_breaks_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setitem(OWN, "identity", broken)
    decision = decide(load_policy(), Facts("m", "1", "quantized", NOW), "@champion")
    identity = next(check for check in decision.checks if check.check == "identity")
    assert identity.outcome == "fail" and "boom" in identity.reason


def test_the_first_matching_rule_wins() -> None:
    text = load_policy().text.replace(
        'rules:\n  - models: "*"', 'rules:\n  - models: "toy-*"\n    destinations: {"@champion": open}\n  - models: "*"'
    )
    policy = parse_policy(text, source="x.yaml")
    assert destination_kind(policy, "Toy-1", "@champion") == "open"
    assert destination_kind(policy, "real", "@champion") == "gated"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("min_items", "min_itmes", "min_items"),
        ("mode: enforce", "mode: enforced", "mode"),
        ('"@champion": full', '"@champion": ful', "ful"),
        ("name: default", "name: default\nname: twice", "twice"),
        ("schema: quantgov/policy/v1", "schema: &a quantgov/policy/v1\nx: *a", "aliases"),
    ],
)
def test_a_wrong_policy_is_one_clear_error(old: str, new: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as raised:
        parse_policy(load_policy().text.replace(old, new, 1), source="policy.yaml")
    assert "policy.yaml" in raised.value.what and "Fix:" in str(raised.value)


def test_a_policy_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_exit_code_tells_missing_from_failed() -> None:
    policy = load_policy()
    assert decide(policy, Facts("m", "1", "quantized", NOW), "@candidate").exit_code == 0
    assert decide(policy, Facts("m", "1", "quantized", NOW), "@champion").exit_code == 1

"""A pinned parent: its weights, and what decides its answers beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from releases import MANIFEST, MODEL, PARENT, archive, digest, drill, evidence, facts_of, model_facts

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.lineage import ModelFacts
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Facts
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.schema import ParentPin, Policy, Yardsticks

BEHAVIOUR = model_facts(PARENT).behaviour
WHOLE = {"weights": PARENT, "behaviour": BEHAVIOUR}
CHOSEN = "chosen by author: configuration and tokenizer of the parent"


def pinning(*parents: Any, strict: bool = False) -> Policy:
    """The default policy with parents pinned; with every other yardstick too, and no other accepted, where it is strict."""
    value = yaml.safe_load(load_policy().text)
    yardsticks: dict[str, Any] = {"parents": list(parents)}
    if strict:
        found = facts_of()
        assert found.target is not None
        yardsticks |= {"tasks": [digest("c")], "production": [digest("4")], "targets": [found.target.digest]}
        value["gates"]["full"]["author_may_choose"] = False
    value["rules"][0]["yardsticks"] = yardsticks
    return parse_policy(yaml.safe_dump(value), source="test")


def spoiled() -> ModelFacts:
    """The parent's weights with another rope base."""
    return replace(model_facts(PARENT), behaviour=digest("7"))


def quantized(parent: ModelFacts | None = None) -> Facts:
    """A version of a parent."""
    found = facts_of()
    assert found.lineage is not None
    return replace(found, lineage=replace(found.lineage, parent=parent or model_facts(PARENT)))


def original(model: ModelFacts | None = None) -> Facts:
    """A parent that is promoted itself."""
    measured = tuple(evidence(one) for one in (archive(), drill()))
    model = model or model_facts(PARENT)
    return replace(facts_of(), role="parent", model=model, lineage=None, recorded_manifest=MANIFEST, evidence=measured)


def judged(facts: Facts, policy: Policy) -> tuple[Decision, CheckResult]:
    decision = decide(policy, facts, "@champion")
    return decision, [one for one in decision.checks if one.check == "lineage"][-1]


@pytest.mark.parametrize("make", [quantized, original])
def test_a_bare_digest_accepts_any_configuration_and_says_so(make: Any) -> None:
    for parent in (model_facts(PARENT), spoiled()):
        decision, lineage = judged(make(parent), pinning(PARENT))
        assert lineage.outcome == "pass" and "configuration and tokenizer were chosen by the author" in lineage.reason
        assert any(label.startswith(CHOSEN) or f", {CHOSEN[18:]}" in label for label in decision.labels)
    assert judged(make(), pinning(PARENT))[0].allowed


@pytest.mark.parametrize(
    ("make", "words", "fix"),
    [
        (quantized, "Its parent models:/chat/1 has the weights of an allowed parent, and another", "quantgov log PATH"),
        (original, "It has the weights of an allowed parent, and another", "quantgov log-parent PATH"),
    ],
)
def test_the_weights_of_a_pinned_parent_under_another_configuration_are_refused(
    make: Any, words: str, fix: str
) -> None:
    good, lineage = judged(make(), pinning(WHOLE))
    assert good.allowed and "chosen" not in lineage.reason and not any("of the parent" in one for one in good.labels)
    _, lineage = judged(make(spoiled()), pinning(WHOLE))
    assert lineage.outcome == "fail" and words in lineage.reason and fix in lineage.fix
    # A bare digest beside it opens no way around; another whole one allows what it names.
    assert judged(make(spoiled()), pinning(PARENT, WHOLE))[1].outcome == "fail"
    assert judged(make(spoiled()), pinning(WHOLE, WHOLE | {"behaviour": digest("7")}))[1].outcome == "pass"


@pytest.mark.parametrize("make", [quantized, original])
def test_a_parent_that_is_not_allowed_comes_with_the_line_to_paste(make: Any) -> None:
    _, lineage = judged(make(), pinning(digest("9"), {"weights": digest("8"), "behaviour": BEHAVIOUR}))
    assert lineage.outcome == "fail" and "not among those that the policy allows" in lineage.reason
    line = lineage.fix.split("parents: ")[1]
    assert yaml.safe_load(line) == [WHOLE]
    assert judged(make(), pinning(*yaml.safe_load(line)))[0].allowed


def test_an_unread_parent_is_not_a_pinned_one() -> None:
    for pins in ((PARENT,), (WHOLE,)):
        assert Yardsticks(parents=pins).standing_of(None) == "not-allowed"
    assert Yardsticks().standing_of(None) == "nothing-pinned"


@pytest.mark.parametrize("make", [quantized, original])
def test_where_the_author_may_choose_nothing_a_bare_digest_does_not_pass(make: Any) -> None:
    assert judged(make(), pinning(WHOLE, strict=True))[0].allowed
    decision, lineage = judged(make(), pinning(PARENT, strict=True))
    assert not decision.allowed and lineage.outcome == "missing" and decision.exit_code == 3
    assert lineage.reason == f"The policy wants pinned yardsticks; {CHOSEN}."
    assert yaml.safe_load(lineage.fix.split("parents: ")[1]) == [WHOLE]


def test_a_bare_digest_is_written_as_one_so_that_the_digests_of_policies_stay() -> None:
    pins = Yardsticks.model_validate({"parents": [PARENT, {"weights": PARENT}, WHOLE]})
    assert pins.model_dump(mode="json")["parents"] == [PARENT, PARENT, WHOLE]
    assert pinning(PARENT).digest == pinning({"weights": PARENT}).digest != pinning(WHOLE).digest
    assert Yardsticks.model_validate(pins.model_dump(mode="json")) == pins
    assert yaml.safe_load(ParentPin.of(model_facts(PARENT)).line) == WHOLE


@pytest.mark.parametrize(
    ("pin", "words"),
    [
        (WHOLE | {"behaviour": "sha256:1"}, "behaviour"),
        ({"weights": PARENT, "behavior": BEHAVIOUR}, "did you mean 'behaviour'"),
        ({"behaviour": BEHAVIOUR}, "weights"),
        (7, "parents"),
    ],
)
def test_a_pin_that_cannot_be_meant_is_one_clear_error(pin: Any, words: str) -> None:
    with pytest.raises(QuantgovError, match=words):
        pinning(pin)


def test_a_grid_is_no_matter_for_a_pinned_parent() -> None:
    on_grid = model_facts(PARENT, warnings=("on-k-bit-grid",))
    assert judged(original(on_grid), pinning(WHOLE))[0].allowed
    _, lineage = judged(original(on_grid), load_policy())
    assert lineage.outcome == "fail" and yaml.safe_load(lineage.fix.split("parents: ")[1]) == [WHOLE]
    assert MODEL not in lineage.fix

"""Below four bit under a policy that wants signatures, and two people: what is set aside, what is said, who may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from releases import NOW, contents, digest, evidence, task_eval
from test_narrow import CHECKPOINT, checkpoint, descent, release, sibling, training, wider_eval

from mlflow_quantgov.checkpoint import with_checkpoint
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.evidence.signing import Role, Signature
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.loader import load_policy
from mlflow_quantgov.policy.schema import Gate, Policy


def demanding(**changes: Any) -> Policy:
    policy = load_policy()
    gate = Gate.model_validate(policy.gates["full"].model_dump() | {"signed": {"*": "measurer"}} | changes)
    return policy.model_copy(update={"gates": policy.gates | {"full": gate}})


def by(name: str, *roles: Role) -> tuple[Signature, ...]:
    """A valid signature."""
    return (Signature(f"sha256:{name}", "valid", name, roles, NOW),)


def signed(facts: Facts, unsigned: Callable[[Evidence], bool] = lambda _: False, name: str = "ada") -> Facts:
    """Everything signed by a measurer but for what is not."""

    def of(one: Evidence) -> Evidence:
        return one if unsigned(one) else replace(one, signatures=by(name, "measurer"), actor=name)

    wider = tuple(replace(one, evidence=tuple(map(of, one.evidence))) for one in facts.siblings)
    return replace(facts, evidence=tuple(map(of, facts.evidence)), siblings=wider, requester="bob")


def check(decision: Decision, name: str = "bit-width") -> CheckResult:
    return next(one for one in reversed(decision.checks) if one.check == name)


def is_training(one: Evidence) -> bool:
    return one.kind == "training"


def test_a_signed_release_passes_and_names_who_vouches_for_the_wider_version_too() -> None:
    facts = signed(release())
    wider = facts.siblings[0].evidence[0]
    facts = replace(
        facts, siblings=(replace(facts.siblings[0], evidence=(replace(wider, signatures=by("eve", "measurer")),)),)
    )
    decision = decide(demanding(), facts, "@champion")
    assert decision.allowed, decision.one_line()
    assert "signed by eve: task-eval" in decision.labels
    assert wider.digest in {one["statement"] for one in decision.signatures}


def test_an_unsigned_training_statement_is_none_and_the_remedy_signs() -> None:
    facts = signed(release(), is_training)
    found = check(decide(demanding(), facts, "@champion"))
    assert found.outcome == "missing" and "none is recorded for these weights" in found.reason
    assert "the training statement is signed by nobody" in found.reason
    assert found.fix.startswith("quantgov training") and found.fix.endswith("--code VERSION --key NAME.key.pem")
    assert [one["condition"] for one in found.numbers["unmet"]] == ["training"]
    assert check(decide(demanding(signed={"task-eval": "measurer"}), facts, "@champion")).outcome == "pass"


def test_it_is_named_also_where_something_else_failed() -> None:
    lost = wider_eval(lost=60).tasks
    bad = [task_eval(lost) if isinstance(one, TaskEval) else one for one in contents()]
    found = check(decide(demanding(), signed(release([*bad, training()]), is_training), "@champion"))
    assert found.outcome == "fail" and "the training statement is signed by nobody" in found.reason
    assert found.fix.endswith("--key NAME.key.pem")


def test_an_unsigned_wider_evaluation_is_none_and_both_remedies_sign() -> None:
    wider = sibling().evidence[0].subject
    decision = decide(demanding(), signed(release(), lambda one: one.subject == wider), "@champion")
    found = check(decision)
    assert found.outcome == "missing" and [one["condition"] for one in found.numbers["unmet"]] == ["wider"]
    assert (
        "models:/chat/3 was evaluated and what there is does not count: the task-eval statement is signed by nobody"
        in found.reason
    )
    assert found.fix == found.numbers["unmet"][0]["fix"]
    assert found.fix.count("--tasks tasks/ --key NAME.key.pem") == 2
    assert "not counted: task-eval of models:/chat/3, signed by nobody" in decision.labels


def test_a_wider_version_that_somebody_signed_is_enough_beside_one_that_nobody_did() -> None:
    two = replace(sibling(wider_eval(lost=3)), uri="models:/chat/4")
    wider = two.evidence[0].digest
    facts = signed(release(siblings=(two, sibling())), lambda one: one.digest == wider)
    found = check(decide(demanding(), facts, "@champion"))
    assert found.outcome == "pass" and "models:/chat/3 at 4 bit was evaluated first" in found.reason


@pytest.mark.parametrize(("who", "allowed"), [("eve", False), ("ada", True)])
def test_whoever_measured_the_wider_version_does_not_ask(who: str, allowed: bool) -> None:
    facts = signed(release())
    wider = tuple(replace(one, signatures=by(who, "measurer"), actor=who) for one in facts.siblings[0].evidence)
    facts = replace(facts, siblings=(replace(facts.siblings[0], evidence=wider),), requester="eve")
    decision = decide(demanding(asked_by="somebody-else"), facts, "@champion")
    assert decision.allowed is allowed
    if not allowed:
        assert [one.check for one in decision.checks if one.refuses] == ["approvals"]


def linked(facts: Facts) -> Facts:
    """The weights deny the parent, and are the checkpoint's."""
    assert facts.lineage is not None and facts.checkpoint is not None
    refuted = replace(facts.lineage, descent=descent("refuted"), problems=("Not the parent's.",))
    return replace(facts, lineage=with_checkpoint(refuted, facts.checkpoint))


def test_no_level_rests_on_a_training_statement_that_does_not_count() -> None:
    policy = demanding(lineage_level="numeric")
    assert check(decide(policy, signed(linked(release())), "@champion"), "lineage").outcome == "pass"
    found = check(decide(policy, signed(linked(release()), is_training), "@champion"), "lineage")
    assert found.outcome == "fail" and "Proved up to structure" in found.reason and "Not the parent's." in found.reason
    assert "the training statement is signed by nobody" in found.reason and "quantgov training" in found.fix
    assert check(decide(demanding(), signed(linked(release()), is_training), "@champion"), "lineage").outcome == "pass"


def test_each_gate_goes_by_the_checkpoint_of_whom_it_believes() -> None:
    """An approver's statement names one checkpoint, and what a measurer says, which counts more elsewhere, another."""
    other = checkpoint(uri="models:/other/7", descent=descent("refuted"))
    facts = signed(
        release([*contents(), training(checkpoint_uri=other.uri)], checkpoint=other, other_checkpoints=(checkpoint(),))
    )
    approved = replace(evidence(training(), minutes=600), signatures=by("zoe", "approver"))
    facts = replace(facts, evidence=(*facts.evidence, approved))
    assert "models:/other/7" in check(decide(demanding(), facts, "@champion")).reason
    policy = demanding(signed={"training": "approver"}, lineage_level="numeric")
    decision = decide(policy, facts, "@champion")
    assert decision.allowed, decision.one_line()
    assert f"through the trained checkpoint {CHECKPOINT}" in check(decision, "lineage").reason


def test_a_training_statement_of_other_weights_is_not_named() -> None:
    facts = signed(release(contents(), checkpoint=None))
    facts = replace(facts, evidence=(*facts.evidence, evidence(training(), subject=digest("9"))))
    assert "What there is" not in check(decide(demanding(), facts, "@champion")).reason

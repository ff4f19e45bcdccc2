"""Who is believed: a table of cases through the engine, each signature really made and really verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest
from releases import MODEL, NOW, PARENT, contents, digest, drill, evidence, facts_of, provenance, task, task_eval

from mlflow_quantgov.errors import PolicyError
from mlflow_quantgov.evidence.predicates import Predicate, Waiver
from mlflow_quantgov.evidence.predicates.waiver import Waivable, WaiverV1
from mlflow_quantgov.evidence.signing import (
    NO_KEYS,
    Envelope,
    Signer,
    TrustedKey,
    TrustedKeys,
    examine,
    load_signer,
    make_key,
    sign,
)
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.schema import CHECKS, Policy
from mlflow_quantgov.resources import policies_dir

DAY = timedelta(days=1)
CREATED = 1_700_000_000_000


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Signer]:
    """Everybody who signs in these tests."""
    folder = tmp_path_factory.mktemp("people")
    return {name: load_signer(make_key(name, folder)[0]) for name in ("ada", "bob", "eve")}


def demanding(*lines: str) -> Policy:
    """The default policy with more lines in the gate `full`, and without its slowest check."""
    text = load_policy().text.replace("calibration, ", "", 1)
    text = text.replace("    drill_days: 90\n", "    drill_days: 90\n" + "".join(f"    {one}\n" for one in lines))
    return parse_policy(text, source="policy.yaml")


PLAIN = demanding()
SIGNED = demanding('signed: {"*": measurer}')


def key(signer: Signer, name: str, *roles: str, **changes: Any) -> TrustedKey:
    values = {"id": signer.public.id, "public_key": signer.public.text, "name": name, "roles": roles,
              "not_before": NOW - 30 * DAY}  # fmt: skip
    return TrustedKey(**(values | changes))


def signed(one: Evidence, keys: TrustedKeys, *envelopes: Envelope) -> Evidence:
    """Evidence as the gate has it: whoever signed it is examined at the time when it came."""
    assert one.received_at is not None
    return replace(one, signatures=tuple(examine(envelope, keys, one.received_at, NOW) for envelope in envelopes))


def by(signer: Signer, one: Evidence) -> Envelope:
    return sign(one.statement, signer)


def all_signed(signer: Signer, keys: TrustedKeys, measured: list[Predicate] | None = None, **changes: Any) -> Facts:
    found = [evidence(one) for one in (contents() if measured is None else measured)]
    evidences = tuple(signed(one, keys, by(signer, one)) for one in found)
    return facts_of(evidence=evidences, **({"created": CREATED, "keys": keys.digest} | changes))


def check(decision: Decision, name: str) -> CheckResult:
    return next(one for one in reversed(decision.checks) if one.check == name)


def test_evidence_signed_by_a_measurer_passes_and_is_not_self_reported(people: dict[str, Signer]) -> None:
    keys = TrustedKeys(keys=(key(people["ada"], "ada", "measurer"),))
    decision = decide(SIGNED, all_signed(people["ada"], keys, requester="bob"), "@champion")
    assert decision.allowed, decision.one_line()
    assert "signed by ada: archive, benchmark, drill, kernels, task-eval" in decision.labels
    assert not any(label.startswith("self-reported") for label in decision.labels)
    shown = decision.to_dict()
    assert shown["keys"] == {"digest": keys.digest} and shown["decided_at"] == NOW.isoformat()
    assert {one["name"] for one in shown["signatures"]} == {"ada"} and len(shown["signatures"]) == 5


SECOND = 2
"""Place of the kernels statement among the contents: the one that each case signs otherwise."""


def trusting(people: dict[str, Signer], **changes: Any) -> TrustedKeys:
    return TrustedKeys(keys=(key(people["ada"], "ada", "measurer"), key(people["bob"], "bob", "approver", "waiver"),
                             key(people["eve"], "eve", "measurer", **changes)))  # fmt: skip


CASES: dict[str, tuple[dict[str, Any], Callable[[dict[str, Signer], Evidence], list[Envelope]], str | None]] = {
    "signed by a trusted measurer": ({}, lambda p, one: [by(p["eve"], one)], None),
    "unsigned": ({}, lambda p, one: [], "signed by nobody"),
    "untrusted key": (None, lambda p, one: [by(p["eve"], one)], "signed by the untrusted key"),  # type: ignore[dict-item]
    "wrong role": ({}, lambda p, one: [by(p["bob"], one)], "has not the role measurer but approver and waiver"),
    "expired before it came": ({"until": NOW - DAY}, lambda p, one: [by(p["eve"], one)], "had expired"),
    "expires later": ({"until": NOW + DAY}, lambda p, one: [by(p["eve"], one)], None),
    "not yet valid": ({"not_before": NOW + DAY}, lambda p, one: [by(p["eve"], one)], "before that key was valid"),
    "revoked before it came": (
        {"revoked_at": NOW - DAY, "reason": "lost"}, lambda p, one: [by(p["eve"], one)], "is revoked"),
    "revoked after it came": (
        {"revoked_at": NOW, "reason": "lost"}, lambda p, one: [by(p["eve"], one)], "is revoked"),
    "revocation still to come": (
        {"revoked_at": NOW + DAY, "reason": "leaves"}, lambda p, one: [by(p["eve"], one)], None),
    "signature of another statement": (
        {}, lambda p, one: [replace(by(p["eve"], one), signature=by(p["eve"], evidence(drill())).signature)], "signature that does not fit"),
    "signature of somebody else under her id": (
        {}, lambda p, one: [replace(by(p["bob"], one), key=p["eve"].public.id)], "signature that does not fit"),
    "two signatures, one of the role": ({}, lambda p, one: [by(p["bob"], one), by(p["eve"], one)], None),
    "two signatures, none of the role": (
        {"until": NOW - DAY}, lambda p, one: [by(p["eve"], one), by(p["bob"], one)], "has not the role"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_table_of_cases(people: dict[str, Signer], case: str) -> None:
    changes, envelopes, words = CASES[case]
    keys = trusting(people, **(changes or {}))
    if changes is None:
        keys = TrustedKeys(keys=keys.keys[:2])
    found = list(all_signed(people["ada"], keys).evidence)
    found[SECOND] = signed(found[SECOND], keys, *envelopes(people, found[SECOND]))
    assert found[SECOND].kind == "kernels"
    decision = decide(SIGNED, facts_of(evidence=tuple(found)), "@champion")
    if words is None:
        assert decision.allowed, decision.one_line()
        return
    refused = [one for one in decision.checks if one.refuses]
    assert [(one.check, one.outcome) for one in refused] == [("kernel-support", "missing")]
    assert words in refused[0].reason and "with the role measurer" in refused[0].reason
    assert refused[0].reason.startswith("Not measured:") and refused[0].fix.endswith("--key NAME.key.pem")
    assert decision.exit_code == 3 and decision.self_audit[3].why.startswith("Not measured:")
    # Where nobody asks for signatures, the very same counts, and is shown as what it is.
    plain = decide(PLAIN, facts_of(evidence=tuple(found), requester="zoe"), "@champion")
    assert plain.allowed
    if "role" not in words:
        assert "self-reported: kernels" in plain.labels


def test_where_the_server_trusts_nobody_nothing_is_signed(people: dict[str, Signer]) -> None:
    decision = decide(SIGNED, all_signed(people["ada"], NO_KEYS), "@champion")
    assert not decision.allowed
    assert {one.outcome for one in decision.checks if one.check == "task-eval"} == {"missing"}


def test_kinds_may_want_signatures_one_by_one(people: dict[str, Signer]) -> None:
    policy = demanding("signed: {task-eval: measurer, drill: approver}")
    keys = trusting(people)
    facts = all_signed(people["ada"], keys)
    decision = decide(policy, facts, "@champion")
    assert [one.check for one in decision.checks if one.refuses] == ["rollback-archive"]
    assert "has not the role approver" in check(decision, "rollback-archive").reason


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("signed: {task-evil: measurer}",), "no kind of evidence"),
        (("signed: {waiver: measurer}",), "no kind of evidence"),
        (("signed: {task-eval: boss}",), "measurer"),
        (("asked_by: me",), "somebody-else"),
    ],
)
def test_a_wrong_demand_is_one_clear_error(lines: tuple[str, ...], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        demanding(*lines)


# A statement that came later, from somebody who signs nothing.


@pytest.mark.parametrize("policy", [SIGNED, PLAIN], ids=["signed", "default"])
@pytest.mark.parametrize("good_first", [True, False])
def test_an_unsigned_statement_that_came_later_takes_nothing_away_and_is_named(
    people: dict[str, Signer], policy: Policy, good_first: bool
) -> None:
    """Neither a bad one that hides a good one, nor a good one, of more items, that hides a bad one."""
    good = task_eval(tuple(task(name) for name in ("multi-step-reasoning", "instruction-following", "edge-cases")))
    lost = task("edge-cases", task("edge-cases").items[:150])
    bad = task_eval(
        (*good.tasks[:2], lost.model_copy(update={"items": tuple(
            one.model_copy(update={"quantized": one.quantized.model_copy(update={"score": 0.0})}) for one in lost.items)}))
    )  # fmt: skip
    keys = trusting(people)
    first, second = (good, bad) if good_first else (bad, good)
    rest = [one for one in all_signed(people["ada"], keys).evidence if one.kind != "task-eval"]
    vouched = evidence(first, minutes=60)
    later = evidence(second, minutes=5)
    found = (*rest, signed(vouched, keys, by(people["ada"], vouched)), later)
    decision = decide(policy, facts_of(evidence=found, requester="bob"), "@champion")
    assert check(decision, "task-eval").outcome == ("pass" if good_first else "fail")
    assert check(decision, "task-eval").evidence == (vouched.digest,)
    assert any(label.startswith("not counted: task-eval") for label in decision.labels)


def test_an_older_signed_statement_that_is_sent_again_does_not_replace_a_newer_one(people: dict[str, Signer]) -> None:
    """Whoever carries statements around cannot choose among them: the date is what the measurer signed."""
    keys = trusting(people)
    failed = evidence(drill(answered=False, provenance=provenance(measured_at=NOW - DAY)), minutes=60)
    old = evidence(drill(provenance=provenance(measured_at=NOW - 3 * DAY)), minutes=5)
    rest = [one for one in all_signed(people["ada"], keys).evidence if one.kind != "drill"]
    found = (*rest, *(signed(one, keys, by(people["ada"], one)) for one in (failed, old)))
    decision = decide(SIGNED, facts_of(evidence=found), "@champion")
    assert check(decision, "rollback-archive").outcome == "fail"


# Who asks.


TWO = demanding('signed: {"*": measurer}', "asked_by: somebody-else")


@pytest.mark.parametrize(
    ("requester", "actor", "allowed"),
    [
        ("bob", "ada", True),
        ("bob", None, True),
        ("ada", "ada", False),
        ("ada", "courier", False),
        ("Ａda ", "courier", False),
        ("bob", "bob", False),
        ("anonymous", "ada", False),
        (None, "ada", False),
    ],
)
def test_whoever_measured_or_attached_does_not_ask(
    people: dict[str, Signer], requester: str | None, actor: str | None, allowed: bool
) -> None:
    facts = all_signed(people["ada"], trusting(people), requester=requester)
    facts = replace(facts, evidence=tuple(replace(one, actor=actor) for one in facts.evidence))
    decision = decide(TWO, facts, "@champion")
    assert decision.allowed is allowed
    if not allowed:
        assert [one.check for one in decision.checks if one.refuses] == ["approvals"]
        assert [one.check for one in decision.checks].count("approvals") == 1
        assert decision.exit_code == 3 and check(decision, "approvals").fix


def test_whoever_is_on_call_may_go_back_to_the_parent(people: dict[str, Signer]) -> None:
    keys = trusting(people)
    facts = all_signed(people["ada"], keys, requester="ada")
    parent = facts.lineage.parent if facts.lineage else None
    assert parent is not None
    alone = replace(facts, role="parent", model=parent, lineage=None, recorded_manifest=parent.manifest)
    assert decide(TWO, alone, "@champion").allowed
    unsigned = replace(alone, evidence=tuple(replace(one, signatures=()) for one in alone.evidence))
    assert not decide(TWO, unsigned, "@champion").allowed


# Waivers.


def waiver(**changes: Any) -> Waiver:
    values = {"provenance": provenance(), "model": "chat", "version": "2", "created": CREATED, "check": "rollback-archive",
              "reason": "the drill is booked", "until": NOW + DAY}  # fmt: skip
    return Waiver.measured(**(values | changes))


def waived(
    people: dict[str, Signer], content: Predicate, signer: str = "bob", subject: str = MODEL, **changes: Any
) -> Decision:
    """A release without its drill, and a waiver."""
    keys = trusting(people) if not changes else TrustedKeys(
        keys=(key(people["ada"], "ada", "measurer"), key(people["bob"], "bob", "waiver", **changes)))  # fmt: skip
    facts = all_signed(people["ada"], keys, [one for one in contents() if one.KIND != "drill"])
    one = evidence(content, minutes=1, subject=subject)
    envelopes = [by(people[signer], one)] if signer else []
    facts = replace(facts, evidence=(*facts.evidence, signed(one, keys, *envelopes)))
    return decide(SIGNED, facts, "@champion")


def test_a_waived_check_lets_through_and_stays_a_no(people: dict[str, Signer]) -> None:
    decision = waived(people, waiver())
    assert decision.allowed and decision.exit_code == 0
    found = check(decision, "rollback-archive")
    assert found.outcome == "waived" and found.numbers["waiver"]["was"] == "missing"
    assert (
        found.reason.startswith("Not measured:")
        and "Waived by bob until 2026-06-02: the drill is booked" in found.reason
    )
    answer = decision.self_audit[4]
    assert (answer.answer, answer.waived) == ("no", True) and answer.why.startswith("Not measured:")
    assert not any(one.waived for one in decision.self_audit[:4])
    assert decision.to_dict()["waived"] == ["rollback-archive"]
    assert "waived: rollback-archive by bob" in decision.labels
    assert "with rollback-archive waived" in decision.one_line()


@pytest.mark.parametrize(
    ("content", "signer", "subject", "changes"),
    [
        (waiver(until=NOW), "bob", MODEL, {}),
        (waiver(version="3"), "bob", MODEL, {}),
        (waiver(model="Chat"), "bob", MODEL, {}),
        (waiver(created=CREATED + 1), "bob", MODEL, {}),
        (waiver(check="benchmark"), "bob", MODEL, {}),
        (waiver(), "bob", digest("7"), {}),
        (waiver(), "bob", PARENT, {}),
        (waiver(), "ada", MODEL, {}),
        (waiver(), "", MODEL, {}),
        (waiver(), "eve", MODEL, {"not_before": NOW - DAY}),
        (waiver(), "bob", MODEL, {"until": NOW}),
        (waiver(), "bob", MODEL, {"revoked_at": NOW, "reason": "lost"}),
        (waiver(), "bob", MODEL, {"not_before": NOW}),
        (
            WaiverV1.measured(provenance=provenance(), check="rollback-archive", reason="x", until=NOW + DAY),
            "bob",
            MODEL,
            {},
        ),
    ],
    ids=["ended", "another version", "another model", "made anew under that number", "another check", "other bytes",
         "the parent's bytes", "no such role", "unsigned", "untrusted", "key ended since", "key revoked since",
         "key not yet valid", "of the earlier form"],
)  # fmt: skip
def test_a_waiver_that_does_not_hold_lets_nothing_through(
    people: dict[str, Signer], content: Predicate, signer: str, subject: str, changes: dict[str, Any]
) -> None:
    decision = waived(people, content, signer, subject, **changes)
    assert [(one.check, one.outcome) for one in decision.checks if one.refuses] == [("rollback-archive", "missing")]


def test_a_failed_check_may_be_waived_and_says_that_it_failed(people: dict[str, Signer]) -> None:
    keys = trusting(people)
    facts = all_signed(
        people["ada"], keys, [drill(answered=False) if one.KIND == "drill" else one for one in contents()]
    )
    one = evidence(waiver())
    facts = replace(facts, evidence=(*facts.evidence, signed(one, keys, by(people["bob"], one))))
    found = check(decide(SIGNED, facts, "@champion"), "rollback-archive")
    assert (found.outcome, found.numbers["waiver"]["was"]) == ("waived", "fail")


def test_every_check_but_identity_and_lineage_may_be_waived() -> None:
    assert set(get_args(Waivable)) == set(CHECKS) - {"identity", "lineage"}
    for changes in (
        {"check": "identity"},
        {"check": "lineage"},
        {"check": "anything"},
        {"reason": " "},
        {"reason": ""},
    ):
        with pytest.raises(ValueError):
            waiver(**changes)


def test_the_same_facts_give_the_same_decision_again(people: dict[str, Signer]) -> None:
    keys = trusting(people)
    facts = all_signed(people["ada"], keys)
    assert decide(TWO, facts, "@champion").to_dict() == decide(TWO, facts, "@champion").to_dict()


def test_strict_wants_signatures_and_two_people() -> None:
    gate = load_policy(policies_dir() / "strict.yaml").gates["full"]
    assert (gate.signed, gate.asked_by) == ({"*": "measurer"}, "somebody-else")


def test_an_unsigned_second_run_does_not_lift_the_level(people: dict[str, Signer]) -> None:
    """The gate calls the link `reproduced` by any statement; under a demand for signatures it is what the weights show."""
    policy = demanding('signed: {"*": measurer}').model_copy()
    text = policy.text.replace("lineage_level: structure", "lineage_level: reproduced")
    facts = all_signed(people["ada"], trusting(people))
    assert facts.lineage is not None
    facts = replace(facts, lineage=replace(facts.lineage, level="reproduced"))
    unsigned = evidence(drill(), subject=MODEL)  # anything that is set aside
    decision = decide(parse_policy(text, source="p"), replace(facts, evidence=(*facts.evidence, unsigned)), "@champion")
    assert check(decision, "lineage").outcome == "missing"
    assert "nobody has run its recipe again" in check(decision, "lineage").reason

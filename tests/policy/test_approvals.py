"""Who approves: a table of cases and a property, each signature really made and really verified."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from releases import MODEL, NOW, PARENT, digest, evidence, facts_of, model_facts, provenance, task_eval

from mlflow_quantgov.errors import PolicyError
from mlflow_quantgov.evidence.predicates import Approval, Predicate, Waiver, Withdrawal
from mlflow_quantgov.evidence.signing import Signer, TrustedKey, TrustedKeys, examine, load_signer, make_key, sign
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.loader import parse_policy
from mlflow_quantgov.policy.release_steps import Release, steps
from mlflow_quantgov.policy.schema import Policy

DAY = timedelta(days=1)
CREATED = 1_700_000_000_000
HOLDERS = {"ada": "Ada", "ada-2": "ADA ", "ben": "ben", "cyd": "cyd", "dan": "dan", "eve": "eve"}
"""Key to the name that the server knows; Ada has two, Dan's is no approver's, Eve's is not trusted."""


def policy(demand: str, extra: str = "") -> Policy:
    text = f"""
schema: quantgov/policy/v1
name: people
gates: {{two: {{checks: [approvals], approvals: {demand}}}, rest: {{checks: [approvals, task-eval], approvals: {demand}, capabilities: {{edge-cases: {{margin: 0.02}}}}}}}}
rules: [{{models: "*", destinations: {{"@champion": two, "@production": two, "@measured": rest}}}}]
{extra}"""
    return parse_policy(text, source="policy.yaml")


TWO = policy("2")


def people(folder: Path) -> dict[str, Signer]:
    return {name: load_signer(make_key(name, folder)[0]) for name in HOLDERS}


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Signer]:
    return people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def keys(signers: dict[str, Signer]) -> TrustedKeys:
    return trusted(signers)


def trusted(signers: dict[str, Signer], **changes: dict[str, Any]) -> TrustedKeys:
    found = []
    for who, signer in signers.items():
        if who == "eve":
            continue
        values = {"id": signer.public.id, "public_key": signer.public.text, "name": HOLDERS[who].strip(),
                  "roles": ("measurer",) if who == "dan" else ("approver", "measurer"), "not_before": NOW - 300 * DAY}  # fmt: skip
        found.append(TrustedKey(**(values | changes.get(who, {}))))
    return TrustedKeys(keys=tuple(found))


def approval(asked: Policy = TWO, **changes: Any) -> Approval:
    values = {"provenance": provenance(), "model": "chat", "version": "2", "created": CREATED, "manifest": digest("1"),
              "destination": "@champion", "policy": asked.digest}  # fmt: skip
    return Approval.measured(**(values | changes))


def withdrawal(**changes: Any) -> Withdrawal:
    values = {
        "provenance": provenance(),
        "model": "chat",
        "version": "2",
        "created": CREATED,
        "destination": "@champion",
    }
    return Withdrawal.measured(**(values | changes))


def said(content: Predicate, keys: TrustedKeys, *signers: Signer, minutes: int = 30, subject: str = MODEL) -> Evidence:
    """A statement as the gate has it, so many minutes ago, signed by some."""
    one = evidence(content, minutes, subject)
    assert one.received_at is not None
    seen = tuple(examine(sign(one.statement, by), keys, one.received_at, NOW) for by in signers)
    return replace(one, signatures=seen)


def version(*found: Evidence, **changes: Any) -> Facts:
    return facts_of([], evidence=found, **({"created": CREATED, "requester": "rita"} | changes))


def judged(asked: Policy, facts: Facts, to: str = "@champion") -> CheckResult:
    return next(one for one in decide(asked, facts, to).checks if one.check == "approvals")


def counted(asked: Policy, facts: Facts, to: str = "@champion") -> set[str]:
    return {one["person"] for one in judged(asked, facts, to).numbers["approved_by"]}


def test_two_people_let_it_through_and_one_does_not(signers: dict[str, Signer], keys: TrustedKeys) -> None:
    ada = said(approval(), keys, signers["ada"])
    ben = said(approval(reason="read the report"), keys, signers["ben"], minutes=20)
    both = decide(TWO, version(ben, ada), "@champion")
    assert both.allowed and "approved by Ada, ben" in both.labels and len(both.signatures) == 2
    alone = judged(TWO, version(ada, holders=(("approver", "Ada"), ("approver", "ben"), ("measurer", "dan"))))
    assert alone.outcome == "missing" and alone.reason.startswith("1 of 2 approvals: Ada.")
    assert alone.fix == "quantgov approve models:/chat/2 --to @champion --key NAME.key.pem (by ben)"


def test_the_table_of_what_does_not_count(signers: dict[str, Signer], keys: TrustedKeys) -> None:
    ada, ben, one = signers["ada"], signers["ben"], policy("1")
    aside = {
        "of an earlier version 2, which was deleted since": said(approval(one, created=CREATED - 1), keys, ada),
        "of other files": said(approval(one, manifest=digest("7")), keys, ada),
        "for @production": said(approval(one, destination="@production"), keys, ada),
        "of before the policy changed": said(approval(TWO), keys, ada),
        "over since": said(approval(one, until=NOW), keys, ada),
        "signed by nobody": said(approval(one, by="Ada"), keys),
        "signed by the untrusted key": said(approval(one), keys, signers["eve"]),
        "has not the role approver but measurer": said(approval(one), keys, signers["dan"]),
        "of who asks for it": said(approval(one), keys, ben),
    }
    for words, statement in aside.items():
        found = judged(one, version(statement, requester="BEN"))
        assert found.outcome == "missing" and words in found.reason, (words, found.reason)
        assert len(found.numbers["not_counted"]) == 1
    # Another version with the same bytes is nobody's concern here, and neither are other weights.
    for other in (approval(one, model="talk"), approval(one, version="3")):
        assert judged(one, version(said(other, keys, ada))).numbers["not_counted"] == []
    assert counted(one, version(said(approval(one), keys, ada, subject=PARENT))) == set()
    assert counted(one, version(said(approval(one, destination="@CHAMPION"), keys, ada))) == {"Ada"}


def test_an_earlier_policy_may_be_let_count(signers: dict[str, Signer], keys: TrustedKeys) -> None:
    given = said(approval(TWO), keys, signers["ada"])
    assert counted(policy("{count: 1, policy: any}"), version(given)) == {"Ada"}


def test_expiry_by_age_is_by_the_gates_clock(signers: dict[str, Signer], keys: TrustedKeys) -> None:
    asked = policy("{count: 1, within_days: 30}")
    fresh = provenance(measured_at=NOW)
    for days, outcome in ((29, "pass"), (30, "missing")):
        held = said(approval(asked, provenance=fresh), keys, signers["ada"], minutes=days * 24 * 60)
        assert judged(asked, version(held)).outcome == outcome


def test_a_second_signature_of_the_same_key_makes_an_approval_no_younger(
    signers: dict[str, Signer], keys: TrustedKeys
) -> None:
    asked = policy("{count: 1, within_days: 30}")
    held = said(approval(asked), keys, signers["ada"], minutes=60 * 24 * 60)
    (old,) = held.signatures
    again = replace(held, signatures=(replace(old, received_at=NOW), old))
    assert judged(asked, version(again)).outcome == "missing"


def test_a_key_that_has_expired_or_was_revoked_approves_no_longer(signers: dict[str, Signer]) -> None:
    asked = policy("1")
    revoked = {"revoked_at": NOW - DAY, "reason": "lost"}
    for change, words in (({"until": NOW}, "a key that has expired"), (revoked, "whose key is revoked")):
        keys = trusted(signers, ada=change)
        found = judged(asked, version(said(approval(asked), keys, signers["ada"])))
        assert found.outcome == "missing" and words in found.reason
        # Ada's other key still stands for her.
        assert counted(asked, version(said(approval(asked), keys, signers["ada"], signers["ada-2"]))) == {"ADA"}


def test_withdrawn_is_withdrawn_by_either_clock_and_may_be_given_again(
    signers: dict[str, Signer], keys: TrustedKeys
) -> None:
    asked, ada = policy("1"), signers["ada"]

    def at(hours: float) -> Any:
        return provenance(measured_at=NOW - timedelta(hours=hours))

    given = said(approval(asked, provenance=at(3)), keys, ada, minutes=180)
    back = said(withdrawal(provenance=at(2)), keys, signers["ada-2"], minutes=120)
    held_back = said(approval(asked, provenance=at(2.5), reason="held back"), keys, ada, minutes=60)
    again = said(approval(asked, provenance=at(1), reason="again"), keys, ada, minutes=60)
    assert counted(asked, version(given)) == {"Ada"}
    found = judged(asked, version(given, back, held_back))
    assert found.outcome == "missing" and "Ada's is withdrawn" in found.reason
    assert counted(asked, version(given, back, again)) == {"Ada"}
    # Nobody else takes it back, nor at another destination, nor without a signature.
    others = (
        said(withdrawal(), keys, signers["ben"]),
        said(withdrawal(), keys, signers["eve"]),
        said(withdrawal(by="Ada"), keys),
        said(withdrawal(destination="@production"), keys, ada),
        said(withdrawal(version="3"), keys, ada),
    )
    assert counted(asked, version(given, *others)) == {"Ada"}


def test_unsigned_counts_only_where_the_server_has_checked_the_name(
    signers: dict[str, Signer], keys: TrustedKeys
) -> None:
    asked = policy("{count: 1, signed: false}")
    given = replace(said(approval(asked, by="ada"), keys), actor="Ada")
    assert "nobody has verified" in judged(asked, version(given)).reason
    assert counted(asked, version(replace(given, verified=True))) == {"ada"}
    assert counted(asked, version(replace(given, verified=True, actor="mallory"))) == set()
    assert counted(policy("1"), version(replace(given, verified=True))) == set()
    # A key still counts, and the same person signed in and by key is one.
    by_key = said(approval(asked), keys, signers["ada"])
    assert len(counted(asked, version(replace(given, verified=True), by_key))) == 1
    back = replace(said(withdrawal(by="ada", provenance=provenance(measured_at=NOW)), keys, minutes=1), actor="ADA")
    assert counted(asked, version(replace(given, verified=True), replace(back, verified=True))) == set()
    assert counted(asked, version(replace(given, verified=True), back)) == {"ada"}


def test_whoever_measured_or_logged_may_be_barred(signers: dict[str, Signer], keys: TrustedKeys) -> None:
    asked = policy("{count: 1, not_by: [measurer, logger]}")
    measured = said(task_eval(), keys, signers["ada"])
    own = said(approval(asked, destination="@measured"), keys, signers["ada-2"])
    by_ben = said(approval(asked, destination="@measured"), keys, signers["ben"])
    found = judged(asked, version(measured, own, logged_by="zoe"), "@measured")
    assert "of who measured task-eval" in found.reason
    assert counted(asked, version(measured, by_ben, logged_by="zoe"), "@measured") == {"ben"}
    assert counted(asked, version(measured, by_ben, logged_by="Ben"), "@measured") == set()
    unknown = judged(asked, version(measured, by_ben), "@measured")
    assert unknown.outcome == "missing" and unknown.reason.startswith("Nobody recorded who logged this version")
    nobodys = replace(evidence(task_eval()), actor=None)
    unknown = judged(asked, version(nobodys, by_ben, logged_by="zoe"), "@measured")
    assert unknown.outcome == "missing" and unknown.reason.startswith("Nobody knows who measured task-eval")


def test_only_named_people_where_the_policy_names_them(signers: dict[str, Signer], keys: TrustedKeys) -> None:
    asked = policy("{count: 1, people: [Cyd]}")
    found = judged(asked, version(said(approval(asked), keys, signers["ada"])))
    assert "whom the policy does not name" in found.reason and found.fix.endswith("(by Cyd)")
    assert counted(asked, version(said(approval(asked), keys, signers["cyd"]))) == {"cyd"}


def test_who_asks_without_a_name_may_be_one_of_them(signers: dict[str, Signer], keys: TrustedKeys) -> None:
    given = said(approval(), keys, *(signers[who] for who in ("ada", "ben")))
    more = said(approval(), keys, *(signers[who] for who in ("ada", "ben", "cyd")))
    for requester in (None, "anonymous"):
        assert judged(TWO, version(given, requester=requester)).outcome == "missing"
        assert judged(TWO, version(more, requester=requester)).outcome == "pass"


def test_a_name_that_no_login_has_checked_is_said_and_may_want_one_more(
    signers: dict[str, Signer], keys: TrustedKeys
) -> None:
    label = "not verified: that it is rita who asks"
    for asker, unchecked in (("named", "pass"), ("verified", "missing")):
        asked = policy(f"{{count: 1, asker: {asker}}}")
        given = said(approval(asked), keys, signers["ada"])
        assert judged(asked, version(given, requester_verified=False)).outcome == unchecked
        assert judged(asked, version(given, requester_verified=True)).outcome == "pass"
        assert label in decide(asked, version(given, requester_verified=False), "@champion").labels


def test_going_back_to_the_parent_asks_nobody_unless_the_policy_says_so() -> None:
    parent = {"role": "parent", "model": model_facts(PARENT), "lineage": None}
    assert judged(TWO, version(**parent)).outcome == "not-applicable"
    assert judged(policy("{count: 1, parents: true}"), version(**parent)).outcome == "missing"


def test_a_demand_for_signatures_on_evidence_leaves_approvals_alone(
    signers: dict[str, Signer], keys: TrustedKeys
) -> None:
    text = TWO.text.replace(
        "checks: [approvals],", 'checks: [approvals], signed: {"*": measurer}, asked_by: somebody-else,'
    )
    asked = parse_policy(text, source="policy.yaml")
    found = decide(asked, version(said(approval(asked), keys, *(signers[who] for who in ("ada", "ben")))), "@champion")
    assert found.allowed and not [one for one in found.labels if "not counted" in one or "self-reported" in one]


def test_approvals_may_be_waived_and_stay_red(signers: dict[str, Signer], keys: TrustedKeys) -> None:
    waiving = trusted(signers, ben={"roles": ("waiver",)})
    waiver = Waiver.measured(provenance=provenance(), model="chat", version="2", created=CREATED, check="approvals",
                             reason="both are ill", until=NOW + DAY)  # fmt: skip
    found = decide(TWO, version(said(waiver, waiving, signers["ben"])), "@champion")
    assert found.allowed and found.waived == ("approvals",)


def test_policies_that_contradict_themselves_are_refused() -> None:
    for text, words in (
        (TWO.text.replace("checks: [approvals],", "checks: [identity],"), "not among the checks"),
        (TWO.text.replace('models: "*",', 'models: "*", create: gated,'), "exclude each other"),
        (TWO.text.replace("approvals: 2", "approvals: -1"), "approvals"),
        (TWO.text.replace("approvals: 2", "approvals: {role: boss}"), "role"),
        (TWO.text.replace("approvals: 2", "approvals: 2, signed: {approval: approver}"), "no kind of evidence"),
    ):
        with pytest.raises(PolicyError, match=words):
            parse_policy(text, source="policy.yaml")
    assert parse_policy(TWO.text.replace("approvals: 2", "approvals: 0"), source="p").gates["two"].approvals is None


def test_the_plan_of_a_release_names_the_command_and_who() -> None:
    gate = policy("{count: 2, within_days: 30, not_by: [measurer]}").gates["two"]
    release = Release("chat", "parent", "made", "cpu", False, False, False, False, "@champion", 4)
    found = next(one for one in steps(gate, release) if one.checks == ("approvals",))
    assert found.commands[0].startswith("quantgov approve models:/chat/2 --to @champion")
    assert "2 people" in found.note and "not whoever asks for it or measured" in found.note


@pytest.fixture(scope="module")
def pool(signers: dict[str, Signer], keys: TrustedKeys) -> dict[tuple[str, ...], Evidence]:
    """Statements signed by one or two, each made once."""
    names = list(HOLDERS)
    groups = [(one,) for one in names] + [(one, two) for one in names for two in names if one < two]
    return {
        who: said(approval(reason=" ".join(who)), keys, *(signers[one] for one in who), minutes=number)
        for number, who in enumerate(groups, 1)
    }


@given(data=st.data(), requester=st.sampled_from(["rita", "ADA", "Ben", "cyd", "dan"]))
def test_counting_depends_on_people_alone(
    pool: dict[tuple[str, ...], Evidence], data: st.DataObject, requester: str
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(pool)), max_size=8))
    shuffled = data.draw(st.permutations(chosen))
    holder = {"ada": "ada", "ada-2": "ada", "ben": "ben", "cyd": "cyd"}
    expected = {holder[who] for group in chosen for who in group if who in holder} - {requester.lower()}

    def ask(groups: list[tuple[str, ...]]) -> Decision:
        return decide(TWO, version(*(pool[one] for one in groups), requester=requester), "@champion")

    first, second, twice = ask(chosen), ask(shuffled), ask(chosen + shuffled)
    for found in (first, second, twice):
        (check,) = found.checks
        assert {one["person"].lower() for one in check.numbers["approved_by"]} == expected
        assert found.allowed == (len(expected) >= 2)
    assert first.checks[0].numbers["approved_by"] == second.checks[0].numbers["approved_by"]

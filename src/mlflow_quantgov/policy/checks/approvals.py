"""Have enough people agreed?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import ApprovalsDemand
from mlflow_quantgov.policy.trust import ANONYMOUS
from mlflow_quantgov.policy.voices import Voice, heard, nobody_knows, persons

NAME = "approvals"


def run(question: Question) -> CheckResult:
    """Pass with enough approvals by different people, each bound to this version, destination and policy."""
    demand, facts = question.gate.approvals, question.facts
    if demand is None:
        return result(NAME, "not-applicable", "The policy asks for no approvals.")
    if facts.role == "parent" and not demand.parents:
        return result(NAME, "not-applicable", "Going back to the full-precision parent needs nobody's approval.")
    voices = heard(question, demand)
    counted = persons(voices)
    # Without a name, whoever asks may be one of those who approved; with one more there are still enough others.
    unnamed = facts.requester in {None, ANONYMOUS} or (demand.asker == "verified" and not facts.requester_verified)
    wanted = demand.count + unnamed
    aside = [one for one in voices if one.problem is not None and fold(one.person) not in counted]
    evidence = [one for one in facts.evidence if one.digest in {voice.statement for voice in counted.values()}]
    numbers: dict[str, Any] = {
        "wanted": wanted,
        "approved_by": [_as_json(one) for one in counted.values()],
        "not_counted": [_as_json(one) for one in aside],
    }
    said = _said(counted, aside, wanted)
    unknown = nobody_knows(question, demand)
    if unknown is not None:
        fix = "have a person who has a name log and measure it: export MLFLOW_TRACKING_USERNAME=..."
        return result(NAME, "missing", f"{unknown} {said}", fix, evidence, **numbers)
    if len(counted) >= wanted:
        return result(NAME, "pass", said, "", evidence, **numbers)
    if unnamed:
        said += " One more than usual is wanted, since nobody has checked who asks."
    return result(NAME, "missing", said, _fix(question, demand, counted), evidence, **numbers)


def _said(counted: dict[str, Voice], aside: Sequence[Voice], wanted: int) -> str:
    names = ", ".join(one.person for one in counted.values())
    said = f"{len(counted)} of {wanted} approval{'s' if wanted > 1 else ''}{f': {names}' if names else ''}."
    ignored = "; ".join(dict.fromkeys(f"{one.person}'s is {one.problem}" for one in aside))
    return f"{said} Not counted: {ignored}." if ignored else said


def _fix(question: Question, demand: ApprovalsDemand, counted: dict[str, Voice]) -> str:
    command = f"quantgov approve {question.uri} --to {question.destination or 'DESTINATION'}"
    barred = {*counted, fold(question.facts.requester or "")}
    holders = demand.people or tuple(name for role, name in question.facts.holders if role == demand.role)
    names = list(dict.fromkeys(name for name in holders if fold(name) not in barred))
    who = f"   (by {', '.join(names)})" if names else f"   (by somebody with the role {demand.role})"
    return f"{command} --key NAME.key.pem{who}" if demand.signed else f"{command}{who if demand.people else ''}"


def _as_json(one: Voice) -> dict[str, Any]:
    until = one.until.isoformat() if one.until else None
    return {"person": one.person, "statement": one.statement, "until": until, "why_not": one.problem}

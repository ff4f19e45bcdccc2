"""Whether the spot-check that a gate asks for is there: by another key, of drawn items, and of enough of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlflow_quantgov.evidence.predicates import SpotCheck, TaskEval
from mlflow_quantgov.evidence.predicates.spot_check_summary import hidden_at, items_for
from mlflow_quantgov.evidence.signing import Role, Signature
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import Gate, SpotCheckDemand
from mlflow_quantgov.policy.spot_check_faults import draws_of, pairs
from mlflow_quantgov.policy.spot_checks import RESTS_ON_TASKS, role_for
from mlflow_quantgov.policy.trust import may_be_author, used, why_not

NUMBERS = "spot_check"
"""Where the numbers of a check say that nothing but a spot-check is missing."""


@dataclass(frozen=True)
class _Lack:
    """Why a spot-check is not what the policy wants."""

    why: str
    items: int = 0
    """How many items would do, where more of them are the remedy."""


@dataclass(frozen=True)
class _Asked:
    """What is asked for, and of what."""

    demand: SpotCheckDemand
    role: Role
    facts: Facts
    sound: list[tuple[Evidence, Evidence]]
    """Every spot-check that is one, with its evaluation."""


def demanded(gate: Gate, facts: Facts, checks: Sequence[CheckResult], uri: str) -> tuple[CheckResult, ...]:
    """The checks, with those that rest on an evaluation missing where the policy wants a spot-check that is not there.

    Args:
        gate: What it asks for.
        facts: Everything that is known, whatever counts: somebody may have tried with evaluations that nobody has signed.
        checks: What came out so far.
        uri: The version, for the remedy.
    """
    demand = gate.spot_check
    if demand is None or facts.role == "parent":
        return tuple(checks)
    asked = _Asked(demand, role_for(gate), facts, list(pairs(facts)))
    return tuple(
        _demanded(one, asked, uri) if one.check in RESTS_ON_TASKS and not one.refuses else one for one in checks
    )


def _demanded(check: CheckResult, asked: _Asked, uri: str) -> CheckResult:
    kept, facts, demand = list(check.evidence), asked.facts, asked.demand
    for evaluation in used(facts, [check]):
        if evaluation.kind != TaskEval.KIND or facts.model is None or evaluation.subject != facts.model.weights:
            continue
        found = _vouching(asked, evaluation)
        if isinstance(found, _Lack):
            reason = (
                f"{check.reason} Not measured: the policy wants a spot-check of the evaluation {evaluation.digest[:19]} by "
                f"another key; {found.why}."
            )
            items = max(demand.items, found.items)
            command = f"quantgov spot-check {uri} --items {items} --statement {evaluation.digest} --key NAME.key.pem"
            numbers = check.numbers | {NUMBERS: {"evaluation": evaluation.digest, "lacks": found.why}}
            fix = f"have somebody else run: {command}"
            return replace(check, outcome="missing", reason=reason, fix=fix, numbers=numbers)
        kept.append(found.digest)
    return replace(check, evidence=tuple(dict.fromkeys(kept)))


def _vouching(asked: _Asked, evaluation: Evidence) -> Evidence | _Lack:
    """A spot-check that is as the policy wants it, or why the one that counts most is not."""
    lack = _Lack("there is none")
    for one, about in asked.sound:
        if about.digest == evaluation.digest:
            found = _shortfall(one, asked, evaluation)
            if found is None:
                return one
            lack = found
    return lack


def _shortfall(one: Evidence, asked: _Asked, evaluation: Evidence) -> _Lack | None:
    content, demand = one.content, asked.demand
    assert isinstance(content, SpotCheck)
    signers = [signature for signature in one.signatures if signature.is_valid and asked.role in signature.roles]
    if not signers:
        return _Lack(f"one is {why_not(one, asked.role)}")
    if content.drawn_by != "gate":
        return _Lack("one was drawn by whoever checked, and not by this server")
    unheard = [_unheard(signature, content, asked.facts, evaluation) for signature in signers]
    heard = [signature for signature, why in zip(signers, unheard, strict=True) if why is None]
    if not heard:
        return _Lack(str(unheard[0]))
    stated = content.stated()
    if stated["outcome"] != "pass":
        return _Lack(f"one is {stated['outcome']}: {stated['reason']}")
    if len(content.items) < min(demand.items, content.of):
        return _Lack(f"one looks at {len(content.items)} items, and the policy wants {demand.items}")
    return _risky(content, demand, min(_tries(signature, asked, evaluation) for signature in heard))


def _unheard(signature: Signature, content: SpotCheck, facts: Facts, evaluation: Evidence) -> str | None:
    """Why somebody does not vouch for a spot-check by signing it; None where they do."""
    if may_be_author(evaluation, signature.name):
        return f"one is signed by {signature.name}, who has measured or attached the evaluation"
    drawn_for = {fold(draw.actor) for draw in draws_of(content, facts.draws or ())}
    # Else somebody draws under many names, and signs what they like.
    if facts.draws is not None and fold(signature.name) not in drawn_for:
        return f"one is signed by {signature.name}, and its items were drawn for somebody else"
    return None


def _tries(signature: Signature, asked: _Asked, evaluation: Evidence) -> int:
    """Evaluations of the same weights of which items were drawn for a signer, without those that the signer has vouched for.

    Whoever can ask under that name may attach many forgeries and present the one whose draw is the luckiest; whoever is caught
    may try again. The chance that any of so many stays hidden is at most their sum.
    """
    name, facts = fold(signature.name), asked.facts
    same = {one.digest for one in facts.evidence if one.kind == TaskEval.KIND and one.subject == evaluation.subject}
    drawn = {draw.statement for draw in facts.draws or () if fold(draw.actor) == name} & same
    held = {
        about.digest
        for one, about in asked.sound
        if one.content.stated()["outcome"] == "pass"
        and name in {fold(by.name) for by in one.signatures if by.is_valid and by.name}
    }
    return len((drawn - held) | {evaluation.digest})


def _risky(content: SpotCheck, demand: SpotCheckDemand, tries: int) -> _Lack | None:
    """Too likely that a forgery would have stayed hidden."""
    hidden = min(1.0, tries * hidden_at(content, demand.share))
    if hidden <= demand.risk:
        return None
    often = (
        f" in one of {tries} evaluations of these weights whose items were drawn for its signer" if tries > 1 else ""
    )
    said = (
        f"one leaves a forgery of {demand.share:.0%} of the items hidden{often} with a probability of {hidden:.2g}, and the policy "
        f"wants {demand.risk:g} at most: "
    )
    items = items_for(content, demand.share, demand.risk / tries)
    if items is None:
        return _Lack(
            f"{said}no number of items shows more where so many may differ, so check it as it was run, on such a machine"
        )
    return _Lack(f"{said}more items show more", items)

"""Who approves of a version at a destination, and why others do not count: see docs/adr/0019."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlflow_quantgov.evidence.predicates import PERMISSIONS, Approval, SpotCheck, Withdrawal
from mlflow_quantgov.evidence.signing import Signature
from mlflow_quantgov.policy.checks.interface import Question
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import ApprovalsDemand
from mlflow_quantgov.policy.trust import ANONYMOUS, why_not


@dataclass(frozen=True)
class Voice:
    """One approval by one person."""

    person: str
    statement: str
    """Digest of the approval."""
    until: datetime | None
    """When it ends by its own date."""
    problem: str | None
    """Why it does not count, in words that follow "is" or "was"; None where it does."""


@dataclass(frozen=True)
class _Said:
    """A person in a statement, and when the gate and the person's own clock say that it was."""

    person: str
    received: datetime
    dated: datetime
    problem: str | None = None


def heard(question: Question, demand: ApprovalsDemand) -> tuple[Voice, ...]:
    """Every approval of this version, in the order in which they came, with what it is worth now.

    Args:
        question: The version, who asks, the destination and the policy.
        demand: Whose approvals count.
    """
    facts, withdrawn = question.facts, tuple(_withdrawals(question))
    found = []
    for one in sorted(facts.of_kind(Approval.KIND), key=lambda one: (_received(one), one.digest)):
        content = one.content
        if not isinstance(content, Approval) or (content.model, content.version) != (facts.name, facts.version):
            continue
        problem = _unfit(content, question, demand)
        for said in _speakers(one, demand, facts.now):
            why = problem or said.problem or _out_of_time(said, content, demand, facts.now)
            why = why or ("withdrawn" if any(_takes_back(other, said) for other in withdrawn) else None)
            found.append(Voice(said.person, one.digest, content.until, why or _barred(said.person, question, demand)))
    return tuple(found)


def persons(voices: Iterable[Voice]) -> dict[str, Voice]:
    """One approval that counts of each person, by folded name: several keys, or keys and a sign-in, are one person."""
    found: dict[str, Voice] = {}
    for one in voices:
        if one.problem is None:
            found.setdefault(fold(one.person), one)
    return found


def nobody_knows(question: Question, demand: ApprovalsDemand) -> str | None:
    """Why nobody can tell who is barred from approving; None where that is known."""
    if "logger" in demand.not_by and question.facts.logged_by in {None, ANONYMOUS}:
        return "Nobody recorded who logged this version, and whoever did may not approve of it."
    if "measurer" in demand.not_by:
        kinds = sorted({one.kind for one in _measured(question.rests_on) if not _authors(one)})
        if kinds:
            return f"Nobody knows who measured {', '.join(kinds)}, and whoever did may not approve."
    return None


def _unfit(content: Approval, question: Question, demand: ApprovalsDemand) -> str | None:
    """What the statement itself is not about."""
    facts = question.facts
    if content.created != facts.created:
        return f"of an earlier version {content.version}, which was deleted since"
    if facts.model is None or content.manifest != facts.model.manifest:
        return "of other files"
    if fold(content.destination) != fold(question.destination):
        return f"for {content.destination}"
    if demand.policy == "same" and content.policy != question.policy:
        return f"of before the policy changed (it was {content.policy[:19]})"
    return None


def _speakers(one: Evidence, demand: ApprovalsDemand, now: datetime) -> Iterator[_Said]:
    """Everybody who stands behind a statement: each valid key's holder, or who was signed in."""
    dated = one.content.provenance.measured_at
    by = getattr(one.content, "by", None)
    for signature in _first(one.signatures):
        said = _Said(signature.name or signature.words(), signature.received_at or dated, dated)
        yield said if (problem := _key_problem(signature, one, demand, now)) is None else _with(said, problem)
    if one.signatures:
        return
    said = _Said(str(by or one.actor or ANONYMOUS), _received(one), dated)
    if demand.signed:
        yield _with(said, "signed by nobody")
    elif not _signed_in(one):
        yield _with(said, "of a name that nobody has verified")
    else:
        yield said


def _key_problem(signature: Signature, one: Evidence, demand: ApprovalsDemand, now: datetime) -> str | None:
    """Why a signature does not stand for its holder now: an approval is a standing permission, as a waiver is."""
    if not signature.is_valid or demand.role not in signature.roles:
        single = Evidence(one.statement, one.content, one.digest, one.actor, one.received_at, (signature,))
        return why_not(single, demand.role)
    return "signed with a key that has expired" if signature.until is not None and now >= signature.until else None


def _out_of_time(said: _Said, content: Approval, demand: ApprovalsDemand, now: datetime) -> str | None:
    if content.until is not None and now >= content.until:
        return f"over since {content.until.isoformat()[:10]}"
    if demand.within_days is not None and now - said.received >= timedelta(days=demand.within_days):
        return f"older than {demand.within_days} days"
    return None


def barred(person: str, facts: Facts, demand: ApprovalsDemand) -> str | None:
    """Why somebody may not approve of this version whoever asks for it, in words that follow "is"; None where they may."""
    name = fold(person)
    if demand.people and name not in {fold(one) for one in demand.people}:
        return "of somebody whom the policy does not name"
    if "logger" in demand.not_by and facts.logged_by is not None and name == fold(facts.logged_by):
        return "of who logged it"
    return None


def _barred(person: str, question: Question, demand: ApprovalsDemand) -> str | None:
    """Why somebody may not approve of this version when it is asked for."""
    name, facts = fold(person), question.facts
    if facts.requester is not None and name == fold(facts.requester):
        return "of who asks for it"
    if (always := barred(person, facts, demand)) is not None:
        return always
    if "measurer" in demand.not_by:
        kinds = sorted({one.kind for one in _measured(question.rests_on) if name in _authors(one)})
        if kinds:
            return f"of who measured {', '.join(kinds)}"
    return None


def _withdrawals(question: Question) -> Iterator[_Said]:
    """Who has taken back what they approved at this destination, and when."""
    facts = question.facts
    for one in facts.of_kind(Withdrawal.KIND):
        content = one.content
        if not isinstance(content, Withdrawal) or not _is_here(content, question.destination, facts):
            continue
        dated = content.provenance.measured_at
        # Whatever became of the key since: a revoked one vouches for nothing, and this takes a permission away.
        for signature in _first(signature for signature in one.signatures if signature.is_trusted):
            yield _Said(signature.name, signature.received_at or dated, dated)
        if not one.signatures and _signed_in(one):
            yield _Said(str(one.actor), _received(one), dated)


def _first(signatures: Iterable[Signature]) -> Iterator[Signature]:
    """One signature of each trusted key, the one that came first: to say it again takes a statement of its own."""
    known: dict[str, Signature] = {}
    for one in signatures:
        if not one.is_trusted:
            yield one
            continue
        before = known.setdefault(one.key, one)
        if one.received_at is not None and (before.received_at is None or one.received_at < before.received_at):
            known[one.key] = one
    yield from known.values()


def _is_here(content: Withdrawal, destination: str, facts: Facts) -> bool:
    named = (content.model, content.version, content.created)
    return named == (facts.name, facts.version, facts.created) and fold(content.destination) == fold(destination)


def _takes_back(withdrawal: _Said, approval: _Said) -> bool:
    """Whether an approval came, or was dated, before the same person withdrew.

    By both clocks: an approval that somebody held back until after the withdrawal is dated before it.
    """
    earlier = approval.received <= withdrawal.received or approval.dated <= withdrawal.dated
    return fold(withdrawal.person) == fold(approval.person) and earlier


def _measured(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Measurements; whoever measured a part of somebody else's work again is the second pair of eyes."""
    return [one for one in evidence if one.kind not in {SpotCheck.KIND, *PERMISSIONS}]


def _authors(one: Evidence) -> set[str]:
    """Folded names of whoever signed or attached a measurement; empty where nobody knows."""
    names = [signature.name for signature in one.signatures if signature.is_valid]
    return {fold(name) for name in (*names, one.actor) if name not in {None, ANONYMOUS} and name is not None}


def _signed_in(one: Evidence) -> bool:
    """Whether the server has checked that the person whom an unsigned statement names is who attached it."""
    by = getattr(one.content, "by", None)
    return one.verified and one.actor not in {None, ANONYMOUS} and by is not None and fold(by) == fold(str(one.actor))


def _received(one: Evidence) -> datetime:
    return one.received_at or one.content.provenance.measured_at


def _with(said: _Said, problem: str) -> _Said:
    return _Said(said.person, said.received, said.dated, problem)

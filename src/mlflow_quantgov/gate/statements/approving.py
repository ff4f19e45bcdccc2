"""Approvals and withdrawals as they come in: what would count for nothing is refused while whoever gives it looks on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from mlflow_quantgov.errors import EvidenceError, pasted
from mlflow_quantgov.evidence.predicates import Approval, Withdrawal
from mlflow_quantgov.evidence.signing import Attached, Signature, TrustedKeys, examine
from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.doors.actor import is_verified
from mlflow_quantgov.gate.facts.sources import VersionRef
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.matching import gate_for
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import ApprovalsDemand, Policy
from mlflow_quantgov.policy.voices import barred

CREATED = "created"
"""Kind of the ledger row that says who logged a version."""
_WHY = "An approval is given by name, for one version as it is now, at one destination, under the policy in force."


def refuse_unfit(
    attached: Attached, facts: Facts, policy: Policy, keys: TrustedKeys, actor: str, source: str, now: datetime
) -> None:
    """Refuse an approval or a withdrawal that would count for nothing; other kinds pass.

    Args:
        attached: As it came.
        facts: The version that it was attached to.
        policy: In force.
        keys: Whose signatures are believed.
        actor: Who attaches it.
        source: How that is known.
        now: By the gate's clock.

    Raises:
        EvidenceError: It is about another version, files, destination or policy, has ended, or nobody stands for it whom
            the policy believes.
    """
    content = attached.statement.content()
    if not isinstance(content, Approval | Withdrawal):
        return
    gate = gate_for(policy, facts.name, content.destination)
    demand = gate.approvals if gate is not None else None
    signature = examine(attached.envelope, keys, now, now) if attached.envelope is not None else None
    problem = _not_here(content, facts)
    if problem is None and isinstance(content, Approval):
        problem = _not_so(content, facts, policy, demand, now)
    problem = problem or _nobody(content, signature, demand, actor, source)
    if problem is None and demand is not None and isinstance(content, Approval):
        bar = barred(signature.name if signature is not None else actor, facts, demand)
        problem = f"is {bar}" if bar is not None else None
    if problem is not None:
        uri = pasted(f"models:/{facts.name}/{facts.version}")
        fix = f"quantgov approve {uri} --to {pasted(content.destination)} --key NAME.key.pem"
        fix += " --withdraw" if isinstance(content, Withdrawal) else ""
        raise EvidenceError(f"The {content.KIND} {problem}.", why=_WHY, fix=fix)


def destination_of(one: Evidence) -> str | None:
    """Where an approval or a withdrawal is for; None for evidence, which is for no destination."""
    return one.content.destination if isinstance(one.content, Approval | Withdrawal) else None


def _not_here(content: Approval | Withdrawal, facts: Facts) -> str | None:
    named = (content.model, content.version, content.created)
    if named == (facts.name, facts.version, facts.created):
        return None
    return (
        f"is for {content.model} version {content.version}, not for {facts.name} version {facts.version} as it is now"
    )


def _not_so(
    content: Approval, facts: Facts, policy: Policy, demand: ApprovalsDemand | None, now: datetime
) -> str | None:
    if demand is None:
        return f"is for {content.destination}, where the policy asks for no approvals"
    if facts.model is None or content.manifest != facts.model.manifest:
        return "is of other files than those that lie there"
    if demand.policy == "same" and content.policy != policy.digest:
        return f"was given under the policy {content.policy[:19]}, and {policy.digest[:19]} is in force"
    if content.until is not None and content.until <= now:
        return f"ended on {content.until.isoformat()[:10]}"
    return None


def _nobody(
    content: Approval | Withdrawal, signature: Signature | None, demand: ApprovalsDemand | None, actor: str, source: str
) -> str | None:
    """Why nobody stands for it."""
    if signature is not None:
        if not signature.is_valid:
            return f"is signed by {signature.words()}, whose key is {signature.standing} here"
        if content.by is not None and fold(content.by) != fold(signature.name):
            return f"names {content.by}, and is signed by {signature.name}"
        wanted = demand.role if demand is not None and isinstance(content, Approval) else None
        if wanted is not None and wanted not in signature.roles:
            return f"is signed by {signature.name}, whose key has not the role {wanted} but {' and '.join(signature.roles)}"
        return None
    if demand is not None and demand.signed and isinstance(content, Approval):
        return "is signed by nobody, and the policy wants a key"
    if not is_verified(source):
        return f"is signed by nobody, and the server has not verified that {actor} is {actor} ({source})"
    if content.by is None or fold(content.by) != fold(actor):
        return f"names {content.by or 'nobody'}, and was sent by {actor}"
    return None


def logged_by(sessions: Callable[[], AbstractContextManager[Session]] | None, ref: VersionRef) -> str | None:
    """Who created a version, as the ledger has it; None where that was not recorded."""
    if sessions is None:
        return None
    with sessions() as session:
        # Versions of before and of other workspaces have the same name and number.
        bond = (ref.creation_time, ref.source)
        for row in ledger.newest_of(session, CREATED, ref.name, ref.version):
            if (row["body"].get("created"), row["body"].get("source")) == bond:
                return str(row["actor"])
    return None


def with_people(facts: Facts, keys: TrustedKeys, logged_by: str | None) -> Facts:
    """Facts with who may vouch for what now, and who logged the version."""
    holders = tuple(
        (role, one.name) for one in keys.keys if one.standing(facts.now, facts.now) == "valid" for role in one.roles
    )
    return replace(facts, holders=holders, logged_by=logged_by)

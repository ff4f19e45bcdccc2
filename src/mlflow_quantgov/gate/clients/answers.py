"""What a gate answers, as plain data: the same over HTTP and in process."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.evidence.signing import TrustedKeys
from mlflow_quantgov.policy.decision import AuditAnswer, CheckResult, Decision
from mlflow_quantgov.policy.facts import Evidence
from mlflow_quantgov.policy.matching import observing
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import Policy
from mlflow_quantgov.policy.spot_checks import role_for


def policy_status(policy: Policy) -> dict[str, Any]:
    """What a gate says of its policy: name, digest, mode, and for which models it only observes."""
    return {"name": policy.name, "digest": policy.digest, "mode": policy.mode, "observing": observing(policy)}


def keys_status(policy: Policy, keys: TrustedKeys) -> dict[str, Any]:
    """What a gate says of its trusted keys: digest, how many, and roles that its policy asks for and no key has."""
    wanted = {role for gate in policy.gates.values() for role in gate.signed.values()}
    wanted |= {role_for(gate) for gate in policy.gates.values() if gate.spot_check is not None}
    return {
        "digest": keys.digest,
        "count": len(keys.keys),
        "lacking": sorted(role for role in wanted if not keys.with_role(role)),
        "too_few": _too_few(policy, keys),
    }


def _too_few(policy: Policy, keys: TrustedKeys) -> dict[str, int]:
    """Roles by which more people have to approve than have a key, and how many that are."""
    found: dict[str, int] = {}
    for gate in policy.gates.values():
        demand = gate.approvals
        if demand is not None and demand.signed:
            names = {fold(one.name) for one in keys.with_role(demand.role) if one.revoked_at is None}
            if len(names) < demand.count:
                found[demand.role] = max(found.get(demand.role, 0), demand.count)
    return found


def taken_in(one: Evidence) -> dict[str, Any]:
    """What a gate answers to a statement that it has taken in."""
    signers = [
        {"key": by.key, "name": by.name, "roles": list(by.roles), "standing": by.standing} for by in one.signatures
    ]
    return {
        "kind": one.kind,
        "statement_digest": one.digest,
        "subject": one.subject,
        "attached": True,
        "signed_by": signers,
    }


def decision_from_dict(data: dict[str, Any]) -> Decision:
    """Read what `Decision.to_dict` wrote."""
    policy = data["policy"]
    return Decision(
        allowed=data["decision"] == "allowed",
        destination=data["destination"],
        model=data["model"],
        version=str(data["version"]),
        policy_name=policy["name"],
        policy_digest=policy["digest"],
        mode=policy.get("mode", "enforce"),
        checks=tuple(
            CheckResult(**{**check, "evidence": tuple(check.get("evidence", ()))}) for check in data.get("checks", ())
        ),
        self_audit=tuple(AuditAnswer(**answer) for answer in data.get("self_audit", ())),
        decision_id=data.get("decision_id", ""),
        what_if=policy.get("what_if", False),
        labels=tuple(data.get("labels", ())),
        summary=data.get("summary", ""),
        keys=data.get("keys", {}).get("digest", ""),
        decided_at=data.get("decided_at", ""),
        signatures=tuple(data.get("signatures", ())),
        judged=dict(data.get("judged", {})),
    )

"""Approve of a version at a destination, take that back, and look again at what stands there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.predicates import Approval, Provenance, Withdrawal
from mlflow_quantgov.evidence.signing import Attached, Signer, sign
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.flavor.download import LocalModel, local_model
from mlflow_quantgov.gate.clients.finding import require_gate
from mlflow_quantgov.gate.clients.interface import Gate
from mlflow_quantgov.gate.doors.actor import current_actor
from mlflow_quantgov.policy.loader import parse_policy
from mlflow_quantgov.policy.matching import gate_for
from mlflow_quantgov.policy.schema import ApprovalsDemand
from mlflow_quantgov.version import __version__
from mlflow_quantgov.versions import registered, send, signer_of

MOST_WORDS = 1000
"""Characters of a reason."""


def approve(
    uri: str,
    to: str,
    *,
    key: str | Path | None = None,
    until: datetime | None = None,
    reason: str | None = None,
    withdraw: bool = False,
) -> dict[str, Any]:
    """Agree by name that one version may stand at one destination, or take that back.

    It counts for these files of this version, there and nowhere else, under the policy that is in force now.

    Args:
        uri: Registered version.
        to: `@alias` or a stage where the policy asks for approvals.
        key: Private key file; None for `QUANTGOV_SIGNING_KEY`, and without that for whoever is signed in, where the policy
            says `signed: false`.
        until: With a time zone; from then on it counts for nothing. None: as long as the policy lets it.
        reason: Words that an auditor will read.
        withdraw: Take back whatever the same person approved of this version there.

    Raises:
        UsageError: The policy asks for no approvals there, no key, or a date that has passed.
        EvidenceError: The server does not take it in.
        UnreachableError: Nothing is gated.
    """
    said = reason.strip() if reason is not None else None
    if (until is not None and (until.tzinfo is None or until <= datetime.now(UTC))) or len(said or "") > MOST_WORDS:
        raise UsageError(
            f"An approval ends at a time that is still to come, and its reason has at most {MOST_WORDS} characters.",
            why="One that has ended counts for nothing.",
            fix=f"quantgov approve {uri} --to {to} --until DATE --key NAME.key.pem",
        )
    signer = signer_of(key)
    gate = require_gate("take in an approval")
    model = local_model(uri)
    name, _ = registered(model)
    demand, digest = _demand(gate, name, to, uri)
    if signer is None and demand.signed:
        raise UsageError(
            "The policy wants approvals to be signed, and no key was named.",
            why=f"Whoever approves does so by name, with a key that has the role {demand.role}.",
            fix=f"quantgov approve {uri} --to {to} --key NAME.key.pem",
        )
    shared = _shared(model, to, signer, said)
    content = (
        Withdrawal.measured(**shared)
        if withdraw
        else Approval.measured(
            **shared, manifest=model.manifest().digest, policy=digest, until=until.astimezone(UTC) if until else None
        )
    )
    statement = Statement.about(model.manifest().weights_digest, content, name=name)
    return send(model, Attached(statement, sign(statement, signer) if signer else None))


def recheck(name: str | None = None) -> Iterator[dict[str, Any]]:
    """Look again at every version at a protected alias or stage: how it came there, and what would be decided today.

    Nothing is recorded or moved. The server reads the files of each, so one is yielded after the other.

    Args:
        name: Registered model; None for all of them.

    Yields:
        `standing` (see `gate.believing.Standing`), `decision` as the JSON contract spells it, and `altered`: whether the files
        or the source are not those that were judged.

    Raises:
        UnreachableError: Nothing is gated.
    """
    gate = require_gate("say what stands on its decisions")
    for one in gate.pointers(name):
        yield gate.recheck(one["model"], one["version"], one["destination"])


def _demand(gate: Gate, name: str, to: str, uri: str) -> tuple[ApprovalsDemand, str]:
    """What the policy asks for at a destination, and the policy's digest."""
    policy = parse_policy(str(gate.policy()["text"]), source="the gate's policy")
    asked = gate_for(policy, name, to)
    if asked is None or asked.approvals is None:
        raise UsageError(
            f"The policy {policy.name} asks for no approvals at {to} of {name}.",
            why="An approval counts at the destination that it names, and nowhere else.",
            fix=f"quantgov check {uri} --to {to}",
        )
    return asked.approvals, policy.digest


def _shared(model: LocalModel, to: str, signer: Signer | None, reason: str | None) -> dict[str, Any]:
    name, version = registered(model)
    assert model.version is not None
    return {
        "provenance": Provenance(measured_at=datetime.now(UTC), tool_version=__version__),
        "model": name,
        "version": version,
        "created": int(model.version.creation_timestamp),
        "destination": to,
        "by": current_actor()[0] if signer is None else None,
        "reason": reason or None,
    }

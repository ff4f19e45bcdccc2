"""Whether the version behind a protected alias or stage was approved there, as the ledger has it."""

from __future__ import annotations

import re

import mlflow

from mlflow_quantgov.errors import UsageError, pasted
from mlflow_quantgov.flavor.download import find_version
from mlflow_quantgov.gate.client import Gate, find_gate
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.matching import destination_kind, fold

_POINTER = re.compile(r"^models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<stage>[^/@0-9][^/@]*))$")
_APPROVING = {"allowed", "inherited"}


def require_approval(model_uri: str) -> str | None:
    """Refuse to load through a protected pointer that no decision of the ledger allows.

    By version number nothing is asked: whoever names a number knows what they load.

    Returns:
        Manifest digest of the files that were approved; None where nothing was asked, or where the pointer was there
        before the gate.

    Raises:
        UsageError: The pointer is protected and its version was not approved there, or nobody can tell.
    """
    pointer = _POINTER.match(model_uri)
    version = find_version(model_uri) if pointer else None
    if pointer is None or version is None:
        return None
    destination = f"@{pointer['alias']}" if pointer["alias"] else str(pointer["stage"])
    gate = find_gate()
    policy = parse_policy(str(gate.policy()["text"]), source="the gate") if gate else load_policy(None)
    if policy.mode == "observe" or destination_kind(policy, version.name, destination) != "gated":
        return None
    if gate is None:
        raise UsageError(
            f"{destination} of {version.name} is protected by the default policy, and {mlflow.get_registry_uri()} "
            "is not gated.",
            why="Nobody decided on evidence that this version may serve there.",
            fix="quantgov doctor; or load_model(..., verify=False) to load it all the same",
        )
    for row in gate.ledger(version.name, 1000):
        same = str(row.get("version")) == str(version.version)
        if same and fold(str(row.get("destination"))) == fold(destination) and row.get("decision") in _APPROVING:
            return _manifest(gate, str(row["decision_id"]))
    raise UsageError(
        f"{version.name} version {version.version} stands at {destination}, and the ledger holds no approval for it.",
        why="It may have been put there around the gate.",
        fix=f"quantgov check {pasted(f'models:/{version.name}/{version.version}')} --to {pasted(destination)}",
    )


def _manifest(gate: Gate, decision_id: str) -> str | None:
    """Digest of the files that a decision was about, as its identity check read them."""
    decision = gate.decision(decision_id)
    checks = decision.checks if decision is not None else ()
    found = next((check.numbers.get("manifest") for check in checks if check.check == "identity"), None)
    return str(found) if found else None

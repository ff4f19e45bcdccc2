"""Whether the version behind a protected alias or stage was approved there, as the ledger has it."""

from __future__ import annotations

import logging
import re

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_quantgov.errors import TamperingError, UnreachableError, UsageError, pasted, visible
from mlflow_quantgov.flavor.download import find_version
from mlflow_quantgov.gate.clients.decided import newest_decided
from mlflow_quantgov.gate.clients.finding import find_gate
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.matching import destination_kind, observes

_POINTER = re.compile(r"^models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<stage>[^/@0-9][^/@]*))$")
_log = logging.getLogger(__name__)


def require_approval(model_uri: str) -> str | None:
    """Refuse to load through a protected pointer that no decision of the ledger allows.

    By version number nothing is asked: whoever names a number knows what they load. A decision counts for the very version
    that was judged: its creation time and its source are compared.

    Returns:
        Manifest digest of the files that were approved; None where nothing was asked, or where the pointer was there
        before the gate.

    Raises:
        TamperingError: The version's source is not the one that was approved.
        UsageError: The pointer is protected and its version was not approved there, or nobody can tell.
    """
    pointer = _POINTER.match(model_uri)
    version = find_version(model_uri) if pointer else None
    if pointer is None or version is None:
        return None
    destination = f"@{pointer['alias']}" if pointer["alias"] else str(pointer["stage"])
    gate = find_gate()
    policy = parse_policy(str(gate.policy()["text"]), source="the gate") if gate else load_policy(None)
    if destination_kind(policy, version.name, destination) != "gated":
        return None
    if gate is None:
        raise UsageError(
            f"{destination} of {version.name} is protected by the default policy, and {mlflow.get_registry_uri()} "
            "is not gated.",
            why="Nobody decided on evidence that this version may serve there.",
            fix="quantgov doctor; or load_model(..., verify=False) to load it all the same",
        )
    found = gate.standing(version.name, str(version.version), destination)
    said = f"{version.name} version {version.version} stands at {destination}, and {found['words']}."
    fix = f"quantgov check {pasted(f'models:/{version.name}/{version.version}')} --to {pasted(destination)}"
    if found["believed"]:
        if found["days_left"] is not None:
            _log.warning("%s Fix: %s", visible(said, keep=""), fix)
        return str(found["manifest"]) if found["manifest"] else None
    if observes(policy, version.name):
        _log.warning("%s It is loaded, since the gate only observes.", visible(said, keep=""))
        return None
    if found["how"] == "re-pointed":
        raise TamperingError(said, why="Other files may lie there than those that were judged.", fix=fix)
    raise UsageError(said, why="Nobody decided on evidence that this version may serve there.", fix=fix)


def decided_manifest(name: str, version: str) -> str | None:
    """Manifest digest of the newest decision that let a version through anywhere.

    Returns:
        None where nothing is gated, nothing was decided, or nobody answers.

    Raises:
        EvidenceError: So much was decided about the model that nobody can tell.
    """
    try:
        gate = find_gate()
        created = int(mlflow.MlflowClient().get_model_version(name, version).creation_timestamp)
        decided = newest_decided(gate, name, version, created) if gate is not None else None
    except (UnreachableError, MlflowException):
        return None
    return decided.manifest if decided is not None else None

"""Talk to the gate from a client: over HTTP where a gated server runs, in process where the store is `quantgov:`."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from typing import Any

import mlflow
import requests
from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

from mlflow_quantgov.errors import EvidenceError, QuantgovError, UnreachableError, UsageError, no_answer
from mlflow_quantgov.evidence.signing import TrustedKeys
from mlflow_quantgov.policy.decision import AuditAnswer, CheckResult, Decision
from mlflow_quantgov.policy.facts import Evidence
from mlflow_quantgov.policy.schema import Policy
from mlflow_quantgov.policy.spot_checks import role_for

TIMEOUT_SECONDS = 600


class NotSignedInError(UnreachableError):
    """The server asks for a login, and got none that it accepts."""

    def __init__(self, uri: str) -> None:
        """Name the server, and how to sign in."""
        super().__init__(
            f"The server {uri} wants you to sign in.",
            why="Nothing was changed.",
            fix="export MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=...",
        )


class Gate(ABC):
    """What a client may ask the gate."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """Version, store and policy of the gate."""

    @abstractmethod
    def policy(self) -> dict[str, Any]:
        """`name`, `digest` and `text` of the policy in force."""

    @abstractmethod
    def keys(self) -> dict[str, Any]:
        """`digest` and `text` of the trusted keys."""

    @abstractmethod
    def check(self, name: str, version: str, destination: str) -> Decision:
        """The decision, before asking for it; nothing is recorded."""

    @abstractmethod
    def attach(self, name: str, version: str, statement: bytes) -> dict[str, Any]:
        """Have a statement taken in.

        Raises:
            EvidenceError: It was not taken in, and why.
        """

    @abstractmethod
    def draw(self, name: str, version: str, statement: str | None = None) -> dict[str, Any]:
        """What decides which items of a task evaluation are measured again: `statement` (digest), `content` (text), `seed`.

        Raises:
            UsageError: The version has no such evaluation.
        """

    @abstractmethod
    def decision(self, decision_id: str) -> Decision | None:
        """A decision of the ledger."""

    @abstractmethod
    def ledger(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Rows of the ledger, newest first."""

    @abstractmethod
    def verify(self) -> dict[str, Any]:
        """`ok`, `rows`, `first_bad` of the hash chain."""


class HttpGate(Gate):
    """A gated MLflow server."""

    def __init__(self, url: str) -> None:
        """Remember the server's address and how this user signs in."""
        self.url = url.rstrip("/")
        self._session = requests.Session()
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        if user is not None:
            self._session.auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in {"true", "1"}

    def status(self) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("GET", "status")

    def policy(self) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("GET", "policy")

    def keys(self) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("GET", "keys")

    def check(self, name: str, version: str, destination: str) -> Decision:
        """See `Gate`."""
        return decision_from_dict(
            self._ask("POST", "check", json={"name": name, "version": version, "to": destination})
        )

    def attach(self, name: str, version: str, statement: bytes) -> dict[str, Any]:
        """See `Gate`."""
        body = {"name": name, "version": version, "statement": statement.decode()}
        return self._ask("POST", "statements", json=body)

    def draw(self, name: str, version: str, statement: str | None = None) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("POST", "draws", json={"name": name, "version": version, "statement": statement})

    def decision(self, decision_id: str) -> Decision | None:
        """See `Gate`."""
        found = self._ask("GET", f"decisions/{decision_id}")
        return decision_from_dict(found)

    def ledger(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """See `Gate`."""
        rows = self._ask("GET", "ledger", params={"model": model, "limit": limit})["rows"]
        return list(rows)

    def verify(self) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("GET", "ledger/verify")

    def _ask(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        try:
            answer = self._session.request(
                method, f"{self.url}/quantgov/api/{path}", timeout=TIMEOUT_SECONDS, headers=_workspace(), **kwargs
            )
            if answer.status_code == 401:
                raise NotSignedInError(self.url)
            body = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise UnreachableError(
                f"The server {self.url} did not answer as a gated MLflow server: {type(error).__name__}.",
                why="Nothing was changed.",
                fix="quantgov doctor",
            ) from error
        if not answer.ok:
            problem = body.get("error", {}) if isinstance(body, dict) else {}
            kind = EvidenceError if path == "statements" else UsageError
            raise kind(
                str(problem.get("message", f"The server answered {answer.status_code}.")),
                why=str(problem.get("why", "")),
                fix=str(problem.get("fix", "quantgov doctor")),
            )
        return dict(body)


class StoreGate(Gate):
    """A `quantgov:` store opened in this process."""

    def __init__(self, uri: str) -> None:
        """Open the store."""
        from mlflow_quantgov.gate.registry_store import open_store

        self._store = open_store(uri)
        self._uri = uri

    def status(self) -> dict[str, Any]:
        """See `Gate`."""
        from mlflow_quantgov.version import __version__

        policy = self._store.quantgov_policy()
        return {
            "gated": True,
            "version": __version__,
            "store": "in process",
            "policy": {"name": policy.name, "digest": policy.digest, "mode": policy.mode},
            "keys": keys_status(self._store.quantgov_policy(), self._store.quantgov_keys()),
        }

    def policy(self) -> dict[str, Any]:
        """See `Gate`."""
        policy = self._store.quantgov_policy()
        return {"name": policy.name, "digest": policy.digest, "text": policy.text}

    def keys(self) -> dict[str, Any]:
        """See `Gate`."""
        keys = self._store.quantgov_keys()
        return {"digest": keys.digest, "text": keys.to_text()}

    def check(self, name: str, version: str, destination: str) -> Decision:
        """See `Gate`."""
        return self._store.quantgov_check(name, version, destination)

    def attach(self, name: str, version: str, statement: bytes) -> dict[str, Any]:
        """See `Gate`."""
        return taken_in(self._store.quantgov_take_in(name, version, statement))

    def draw(self, name: str, version: str, statement: str | None = None) -> dict[str, Any]:
        """See `Gate`."""
        return dict(self._store.quantgov_draw(name, version, statement))

    def decision(self, decision_id: str) -> Decision | None:
        """See `Gate`."""
        found = self._store.quantgov_decision(decision_id)
        return decision_from_dict(found) if found else None

    def ledger(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """See `Gate`."""
        return self._store.quantgov_ledger(model, limit)

    def verify(self) -> dict[str, Any]:
        """See `Gate`."""
        found = self._store.quantgov_verify()
        return {"ok": found.ok, "rows": found.rows, "first_bad": found.first_bad}


def find_gate() -> Gate | None:
    """The gate in front of the registry that MLflow is set to, or None where nothing is gated.

    Raises:
        UnreachableError: The server does not answer at all.
    """
    uri = mlflow.get_registry_uri()
    if uri.startswith("quantgov:"):
        return StoreGate(uri)
    if re.match(r"^[\w.-]+:\d+(/|$)", uri):
        raise UnreachableError(
            f"{uri} is no address of a server.",
            why="It lacks its scheme.",
            fix=f"export MLFLOW_TRACKING_URI=http://{uri}",
        )
    if not uri.startswith(("http://", "https://")):
        return None
    gate = HttpGate(uri)
    try:
        gate.status()
    except NotSignedInError:
        raise
    except QuantgovError:
        _must_answer(uri)
        return None
    return gate


def require_gate(purpose: str) -> Gate:
    """The gate, or an error that says that nothing is gated.

    Raises:
        UnreachableError: Nothing is gated, or the server does not answer.
    """
    gate = find_gate()
    if gate is None:
        raise UnreachableError(
            f"The registry {mlflow.get_registry_uri()} is not gated.",
            why=f"Only a gated server can {purpose}.",
            fix="quantgov doctor",
        )
    return gate


def keys_status(policy: Policy, keys: TrustedKeys) -> dict[str, Any]:
    """What a gate says of its trusted keys: digest, how many, and roles that its policy asks for and no key has."""
    wanted = {role for gate in policy.gates.values() for role in gate.signed.values()}
    wanted |= {role_for(gate) for gate in policy.gates.values() if gate.spot_check is not None}
    return {
        "digest": keys.digest,
        "count": len(keys.keys),
        "lacking": sorted(role for role in wanted if not keys.with_role(role)),
    }


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


def _workspace() -> dict[str, str]:
    """The header by which MLflow's own client names its workspace."""
    found = get_request_workspace()
    return {WORKSPACE_HEADER_NAME: found} if found else {}


def _must_answer(uri: str) -> None:
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=10)
        if answer.status_code in {401, 403}:
            raise NotSignedInError(uri)
        if not answer.ok or answer.text.strip() != "OK":
            raise UnreachableError(
                f"{uri} is no MLflow server: its /health answers {answer.status_code}.",
                why="Nothing was changed.",
                fix="export MLFLOW_TRACKING_URI=http://127.0.0.1:5000   (the address of your MLflow server)",
            )
    except requests.RequestException as error:
        raise no_answer(uri, type(error).__name__) from error


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
    )

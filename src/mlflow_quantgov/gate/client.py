"""Talk to the gate from a client: over HTTP where a gated server runs, in process where the store is `quantgov:`."""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import mlflow
import requests
from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

from mlflow_quantgov.errors import EvidenceError, QuantgovError, TamperingError, UnreachableError, UsageError, no_answer
from mlflow_quantgov.gate.answers import decision_from_dict, keys_status, policy_status, taken_in
from mlflow_quantgov.policy.decision import Decision

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
    def pointers(self, model: str | None = None) -> list[dict[str, Any]]:
        """How every version at a protected alias or stage came there: see `gate.believing.Standing`."""

    @abstractmethod
    def standing(self, name: str, version: str, destination: str) -> dict[str, Any]:
        """How one version came to where it stands.

        Raises:
            UsageError: It does not stand there.
        """

    @abstractmethod
    def recheck(self, name: str, version: str, destination: str) -> dict[str, Any]:
        """`standing`, `decision` as it would be today, and `altered`: whether the files are not those of then.

        Raises:
            UsageError: It does not stand there.
        """

    @abstractmethod
    def decision(self, decision_id: str) -> Decision | None:
        """A decision of the ledger."""

    @abstractmethod
    def ledger(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Rows of the ledger, newest first."""

    @abstractmethod
    def verify(self, wanted: Collection[int] = ()) -> dict[str, Any]:
        """`ok`, `rows`, `first_bad`, `first_hash`, `last_hash` of the hash chain.

        Also `hashes` of the rows that are asked for, and `pointers` that stand where the ledger has not put them.
        """

    @abstractmethod
    def export(self) -> Iterator[dict[str, Any]]:
        """Every row of the ledger, whole, from the first."""

    @abstractmethod
    def record(self, decision_id: str) -> dict[str, Any]:
        """Everything that a decision needs to be made again: `body`, `policy`, `facts`, `statements`.

        Raises:
            UsageError: There is no such decision.
            TamperingError: What it rests on is gone.
        """

    @abstractmethod
    def triggers(self) -> dict[str, Any]:
        """Which triggers the gate's database should have, and has."""


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

    def pointers(self, model: str | None = None) -> list[dict[str, Any]]:
        """See `Gate`."""
        return list(self._ask("GET", "pointers", params={"model": model})["pointers"])

    def standing(self, name: str, version: str, destination: str) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("POST", "standing", json={"name": name, "version": version, "to": destination})

    def recheck(self, name: str, version: str, destination: str) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("POST", "recheck", json={"name": name, "version": version, "to": destination})

    def decision(self, decision_id: str) -> Decision | None:
        """See `Gate`."""
        found = self._ask("GET", f"decisions/{decision_id}")
        return decision_from_dict(found)

    def ledger(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """See `Gate`."""
        rows = self._ask("GET", "ledger", params={"model": model, "limit": limit})["rows"]
        return list(rows)

    def verify(self, wanted: Collection[int] = ()) -> dict[str, Any]:
        """See `Gate`."""
        found = self._ask("GET", "ledger/verify", params={"rows": ",".join(map(str, wanted))})
        return found | {"hashes": {int(seq): one for seq, one in found.get("hashes", {}).items()}}

    def export(self) -> Iterator[dict[str, Any]]:
        """See `Gate`."""
        try:
            with self._session.get(
                f"{self.url}/quantgov/api/ledger/export", timeout=TIMEOUT_SECONDS, stream=True
            ) as answer:
                answer.raise_for_status()
                rows = 0
                for line in answer.iter_lines():
                    row = json.loads(line)
                    if row == {"rows": rows}:
                        return
                    yield row
                    rows += 1
        except (requests.RequestException, ValueError) as error:
            raise no_answer(self.url, type(error).__name__) from error
        raise UnreachableError(
            f"The export broke off after {rows:,} rows.", why="The file would lack the rest.", fix="ask again"
        )

    def record(self, decision_id: str) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("GET", f"decisions/{quote(decision_id, safe='')}/record")

    def triggers(self) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("GET", "triggers")

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
            kind: type[QuantgovError] = EvidenceError if path == "statements" else UsageError
            if problem.get("exit_code") == TamperingError.exit_code:
                kind = TamperingError
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
            "policy": policy_status(policy),
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

    def pointers(self, model: str | None = None) -> list[dict[str, Any]]:
        """See `Gate`."""
        return list(self._store.quantgov_pointers(model))

    def standing(self, name: str, version: str, destination: str) -> dict[str, Any]:
        """See `Gate`."""
        return dict(self._store.quantgov_standing(name, version, destination))

    def recheck(self, name: str, version: str, destination: str) -> dict[str, Any]:
        """See `Gate`."""
        return dict(self._store.quantgov_recheck(name, version, destination))

    def decision(self, decision_id: str) -> Decision | None:
        """See `Gate`."""
        found = self._store.quantgov_decision(decision_id)
        return decision_from_dict(found) if found else None

    def ledger(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """See `Gate`."""
        return self._store.quantgov_ledger(model, limit)

    def verify(self, wanted: Collection[int] = ()) -> dict[str, Any]:
        """See `Gate`."""
        return asdict(self._store.quantgov_verify(wanted))

    def export(self) -> Iterator[dict[str, Any]]:
        """See `Gate`."""
        return self._store.quantgov_export()

    def record(self, decision_id: str) -> dict[str, Any]:
        """See `Gate`."""
        return self._store.quantgov_record(decision_id)

    def triggers(self) -> dict[str, Any]:
        """See `Gate`."""
        return self._store.quantgov_triggers().to_dict()


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

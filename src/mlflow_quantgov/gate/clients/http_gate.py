"""The gate of a server, over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import quote

import requests
from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

from mlflow_quantgov.errors import EvidenceError, QuantgovError, TamperingError, UnreachableError, UsageError, no_answer
from mlflow_quantgov.gate.clients.answers import decision_from_dict
from mlflow_quantgov.gate.clients.interface import Gate
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

    def deployment(self) -> dict[str, Any]:
        """See `Gate`."""
        return self._ask("GET", "deployment")

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


def _workspace() -> dict[str, str]:
    """The header by which MLflow's own client names its workspace."""
    found = get_request_workspace()
    return {WORKSPACE_HEADER_NAME: found} if found else {}

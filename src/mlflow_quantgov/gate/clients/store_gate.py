"""The gate of a `quantgov:` store that is opened in this process."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any

from mlflow_quantgov.gate.clients.answers import decision_from_dict, keys_status, policy_status, taken_in
from mlflow_quantgov.gate.clients.interface import Gate
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.version import __version__


class StoreGate(Gate):
    """A `quantgov:` store opened in this process."""

    def __init__(self, uri: str) -> None:
        """Open the store."""
        from mlflow_quantgov.gate.registry_store import open_store

        self._store = open_store(uri)
        self._uri = uri

    def status(self) -> dict[str, Any]:
        """See `Gate`."""
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

    def deployment(self) -> dict[str, Any]:
        """See `Gate`."""
        from mlflow_quantgov.gate.clients.deployment import describe

        return describe(self._store.engine, stale=self._store.quantgov_stale()).to_dict()

"""What is entered in the ledger with each change, and with each refusal: mixed into the store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import visible
from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.actor import current_actor
from mlflow_quantgov.gate.guards import Pointer
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.gate.tables import KeysRow, PolicyRow
from mlflow_quantgov.policy.decision import Decision

Result = TypeVar("Result")


class Records:
    """Enters changes, refusals, policies and keys."""

    def _record_left(self: Any, name: str, before: list[Pointer]) -> None:
        """Enter every version that no longer stands at the gated stage where it stood."""
        now = set(self.pointers(self._policy, name))
        actor, source = current_actor()
        with self._sessions() as session:
            for held in before:
                if held not in now:
                    entry = Entry("stage-left", actor, source, name, held.version, held.destination, "recorded",
                                  self._policy.digest)  # fmt: skip
                    ledger.append(session, entry)

    def _record(self: Any, session: Session, decision: Decision, *, changed: bool) -> str:
        actor, source = current_actor()
        word = "allowed" if decision.allowed else "observed" if changed else "refused"
        entry = Entry(
            "promotion" if changed else "denial",
            actor,
            source,
            decision.model,
            decision.version,
            decision.destination,
            word,
            decision.policy_digest,
            decision.to_dict(),
        )
        ledger.append(session, entry)
        return entry.decision_id

    def _deny(self: Any, decision: Decision) -> None:
        """Record a denial in a transaction of its own, and refuse."""
        with self._sessions.transaction() as session:
            decision_id = self._record(session, decision, changed=False)
        raise refusal(decision.one_line(report=f"/quantgov/decisions/{decision_id}"))

    def _recorded(
        self: Any, kind: str, name: str, version: str | None, what: str | None, change: Callable[[], Result]
    ) -> Result:
        actor, source = current_actor()
        with self._sessions.transaction() as session:
            self._lock(session, name)
            outcome = change()
            ledger.append(session, Entry(kind, actor, source, name, version, what, "recorded", self._policy.digest))
        return outcome

    def _guard(self: Any, name: str, version: str, reasons: list[str], deed: str) -> None:
        if not reasons or self._policy.mode != "enforce":
            return
        what = f"{name} version {version}" if version else name
        actor, source = current_actor()
        with self._sessions.transaction() as session:
            entry = Entry(
                "denial",
                actor,
                source,
                name,
                version or None,
                None,
                "refused",
                self._policy.digest,
                {"reasons": reasons},
            )
            ledger.append(session, entry)
        raise refusal(
            f"quantgov refused: {what} cannot be {deed}, because {reasons[0]}. Fix: move the alias or stage away first."
        )

    def _lock(self: Any, session: Session, name: str) -> None:
        """PostgreSQL: nobody else changes this model until we commit; SQLite holds its write lock already."""
        if session.get_bind().dialect.name != "sqlite":
            session.execute(select(SqlRegisteredModel).where(SqlRegisteredModel.name == name).with_for_update())

    def _remember_files(self: Any) -> None:
        """Keep each policy and keys file whole, and enter a change of one and the pointers that were here before us."""
        actor, source = current_actor()
        policy, keys, now = self._policy, self._keys, datetime.now(UTC)
        with self._sessions.transaction() as session:
            ledger.lock(session)  # several workers start at once
            if ledger.is_empty(session):
                for name, held in self.all_gated_pointers(policy):
                    entry = Entry("inherited", actor, source, name, held.version, held.destination, "inherited",
                                  policy.digest)  # fmt: skip
                    ledger.append(session, entry)
            if session.get(PolicyRow, policy.digest) is None:
                session.add(PolicyRow(digest=policy.digest, name=policy.name, text=policy.text, first_seen=now))
            if keys.keys and session.get(KeysRow, keys.digest) is None:
                session.add(KeysRow(digest=keys.digest, text=keys.to_text(), first_seen=now))
            described = {"name": policy.name, "mode": policy.mode, "digest": policy.digest}
            trusted = {"digest": keys.digest, "trusted": [one.model_dump(mode="json") for one in keys.keys]}
            for kind, body in (("policy", described), ("keys", trusted)):
                before = ledger.newest_body(session, kind)
                # What was put back is a change too. Rows of before say the digest of a policy in a column of their own.
                if before.get("digest", "") != body["digest"]:
                    entry = Entry(kind, actor, source, decision="recorded", policy_digest=policy.digest, body=body)
                    ledger.append(session, entry)


def refusal(message: str) -> MlflowException:
    """How a refusal leaves the store: REST turns it into 403; one line, whatever the names in it hold."""
    return MlflowException(" ".join(visible(message).split()), error_code=PERMISSION_DENIED)

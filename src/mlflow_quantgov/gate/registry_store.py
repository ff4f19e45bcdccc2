"""The registry store `quantgov:<database uri>`: MLflow's own store, with the policy in front of every pointer.

REST, the web UI, `MlflowClient` and in-process use all end in these methods. Facts are gathered and judged before the
transaction; inside it only digests are compared again, then the ledger row and the change commit together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from sqlalchemy import select

from mlflow_quantgov.errors import require
from mlflow_quantgov.evidence.signing import TrustedKeys
from mlflow_quantgov.gate import in_force, ledger
from mlflow_quantgov.gate.database import workspaces
from mlflow_quantgov.gate.database.outages import tried_again
from mlflow_quantgov.gate.database.session import JoinedSessions
from mlflow_quantgov.gate.database.upgrade import upgrade
from mlflow_quantgov.gate.doors.actor import current_actor, is_verified
from mlflow_quantgov.gate.doors.names import NameDoor
from mlflow_quantgov.gate.doors.server_side import ServerSide
from mlflow_quantgov.gate.doors.supported import check_instance, check_mlflow
from mlflow_quantgov.gate.facts.gathering import Gatherer
from mlflow_quantgov.gate.facts.sources import VersionRef
from mlflow_quantgov.gate.judging import Judging
from mlflow_quantgov.gate.ledger.audit import Audit
from mlflow_quantgov.gate.ledger.records import Records
from mlflow_quantgov.gate.pointers.guards import Deed, Guards
from mlflow_quantgov.gate.pointers.rechecking import Rechecking
from mlflow_quantgov.gate.statements.desk import Desk
from mlflow_quantgov.gate.write_once.settling import Settling
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Facts
from mlflow_quantgov.policy.matching import creation_gated, demanded_bits, demands_weights
from mlflow_quantgov.policy.schema import Policy

SCHEME = "quantgov:"


def open_store(store_uri: str, tracking_uri: str | None = None) -> GatedStore | GatedWorkspaceStore:
    """MLflow's plugin entry point: open the gated store.

    Args:
        store_uri: `quantgov:` and a database URI.
        tracking_uri: Given by MLflow; not used.

    Raises:
        UnsupportedMlflowError: The gate does not stand in this MLflow.
    """
    check_mlflow()
    database = store_uri.removeprefix(SCHEME)
    workspaces = os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in {"1", "true"}
    return (GatedWorkspaceStore if workspaces else GatedStore)(database)


_MOST_DIGITS = 9
"""Of a version's number; a longer one is none that a database holds."""


# Mixed into two of MLflow's stores; for the type checker it is one of them.
if TYPE_CHECKING:
    _Store = SqlAlchemyStore
else:
    _Store = object


class _Gate(Audit, Guards, Rechecking, Desk, Judging, Records, Settling, _Store):
    """The gate; mixed into each of MLflow's store classes."""

    def __init__(self, db_uri: str, read_db_uri: str | None = None) -> None:
        super().__init__(db_uri, read_db_uri=read_db_uri)
        check_instance(self)
        policy, keys = in_force.named_policy(), in_force.named_keys()  # before anything is written
        self._sessions: JoinedSessions = JoinedSessions(self.ManagedSessionMaker)
        self.ManagedSessionMaker = self._sessions
        upgrade(self.engine)
        with self._sessions() as session:
            self._policy = policy or in_force.kept_policy(session)
            self._keys = in_force.kept_keys(session) if keys is None else keys
        if self._keys.keys:
            require("cryptography", extra="sign", purpose="verify signatures by trusted keys")
        sessions, compares = self._sessions.transaction, partial(demands_weights, self._policy)
        self._gatherer = Gatherer(
            self, self.engine, sessions, compares, self._keys, partial(demanded_bits, self._policy)
        )
        named = {kind for kind, file in (("policy", policy), ("keys", keys)) if file is not None}
        self._remember_files(named)

    # What others in this process ask.

    def quantgov_policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    def quantgov_keys(self) -> TrustedKeys:
        """The keys that are trusted."""
        return self._keys

    @tried_again
    def quantgov_facts(self, name: str, version: str) -> Facts:
        """Everything that is known about a version."""
        actor, source = current_actor()
        return replace(self._gatherer.gather(name, version, actor), requester_verified=is_verified(source))

    @tried_again
    def quantgov_check(self, name: str, version: str, destination: str) -> Decision:
        """The decision, before asking for it; nothing is recorded."""
        return self.quantgov_decide(self.quantgov_facts(name, version), destination)

    def quantgov_decide(self, facts: Facts, destination: str) -> Decision:
        """What is decided from facts; an answer by files that are not in force any more would be about nothing.

        Raises:
            MlflowException: Policy or keys of this process are not (403).
        """
        self.quantgov_refuse_stale()
        return decide(self._policy, facts, destination)

    @tried_again
    def quantgov_refuse_stale(self) -> None:
        """Refuse to answer by files that are in force no longer.

        Raises:
            MlflowException: Policy or keys of this process are not (403).
        """
        with self._sessions() as session:
            self._refuse_stale(session)

    def quantgov_stale(self) -> str | None:
        """Why this process decides nothing until it is started again; None where its files are in force."""
        with self._sessions() as session:
            return self._stale(session)

    def quantgov_decision(self, decision_id: str) -> dict[str, Any] | None:
        """One decision of the ledger."""
        with self._sessions() as session:
            return ledger.decision(session, decision_id)

    def quantgov_ledger(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Rows of the ledger, newest first."""
        with self._sessions() as session:
            return ledger.rows(session, model, limit)

    def reference(self, name: str, version: str) -> VersionRef:
        """What identifies a version now: one query, since every decision asks several times."""
        with self._sessions() as session:
            return _reference(self._get_sql_model_version(session, name, version))

    def references(self, name: str) -> Iterable[VersionRef]:
        """Every version of a model, newest first; MLflow's search leaves out what anybody has flagged as a prompt."""
        of: Any = SqlModelVersion
        there = of.current_stage.is_distinct_from(STAGE_DELETED_INTERNAL)
        query = select(of).where(of.workspace == workspaces.current(), of.name == name, there)
        with self._sessions() as session:
            return [
                _reference(row)
                for row in session.scalars(query.order_by(of.last_updated_time.desc(), of.version.desc()))
            ]

    # The doors.

    @tried_again
    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Gated: point an alias to a version."""
        number = self._number(name, version)
        self._gated(
            name, number, f"@{alias}", lambda: super(_Gate, self).set_registered_model_alias(name, alias, number)
        )

    @tried_again
    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> Any:
        """Gated: move a version to a stage."""
        number = self._number(name, version)

        def move() -> Any:
            with self._leaving(name, number, stage, archive_existing_versions):
                # As a number: psycopg 3 does not compare MLflow's integer column with a text.
                return super(_Gate, self).transition_model_version_stage(
                    name, int(number), stage, archive_existing_versions
                )

        return self._gated(name, number, stage, move)

    @tried_again
    def create_model_version(self, name: str, source: str, *args: Any, **kwargs: Any) -> Any:
        """Gated where the policy says `create: gated`; this is also where "Promote model" and copies end."""
        self._refuse_source(source)
        create = partial(super().create_model_version, name, source, *args, **kwargs)
        if not creation_gated(self._policy, name):
            return self._logged(name, create)
        return self._undisturbed(source, lambda: self._gated_creation(name, source, create))

    @tried_again
    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Recorded: an alias may always be taken away."""
        self._recorded(
            "alias-removed", name, f"@{alias}", lambda: super(_Gate, self).delete_registered_model_alias(name, alias)
        )

    @tried_again
    def delete_model_version(self, name: str, version: str) -> None:
        """Guarded: not while a gated pointer or a rollback needs it."""
        number = self._number(name, version)
        self._guarded(Deed("deletion", name, number), lambda: super(_Gate, self).delete_model_version(name, number))

    @tried_again
    def delete_registered_model(self, name: str) -> None:
        """Guarded: not while a gated pointer stands in it, or elsewhere on what was made from it."""
        self._guarded(Deed("deletion", name), lambda: super(_Gate, self).delete_registered_model(name))

    @tried_again
    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Guarded: pointers survive a rename, so it may not carry them past the policy."""
        deed = Deed("rename", name, new_name=new_name)
        return self._guarded(deed, lambda: super(_Gate, self).rename_registered_model(name, new_name))

    def _number(self, name: str, version: str) -> str:
        """The version's own spelling of its number: ` 2` and `02` name version 2, and are recorded as that."""
        given = str(version).strip()
        if given.isdecimal() and len(given) > _MOST_DIGITS:
            raise MlflowException(f"No model has a version {given[:40]}.", error_code=RESOURCE_DOES_NOT_EXIST)
        return self.reference(name, version).version


def _reference(row: Any) -> VersionRef:
    """What a row of MLflow's table of versions says."""
    location = row.storage_location or row.source
    return VersionRef(row.name, str(row.version), row.source, int(row.creation_time), location)


class GatedStore(NameDoor, ServerSide, _Gate, SqlAlchemyStore):
    """MLflow's store behind the gate."""


class GatedWorkspaceStore(NameDoor, ServerSide, _Gate, WorkspaceAwareSqlAlchemyStore):
    """MLflow's workspace-aware store behind the gate."""

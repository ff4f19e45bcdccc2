"""What is entered in the ledger with each change, and with each refusal: mixed into the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModel
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import PolicyError
from mlflow_quantgov.evidence.statement import sha256_digest
from mlflow_quantgov.gate import in_force, ledger
from mlflow_quantgov.gate.database import workspaces
from mlflow_quantgov.gate.database.granting import granted, is_undecidable, knows, tell
from mlflow_quantgov.gate.database.tables import FactsRow, KeysRow, LedgerRow, PolicyRow
from mlflow_quantgov.gate.doors.actor import current_actor
from mlflow_quantgov.gate.doors.refusals import refusal
from mlflow_quantgov.gate.doors.static_prefix import static_prefix
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.gate.ledger.snapshots import snapshot
from mlflow_quantgov.gate.pointers.listing import all_pointers
from mlflow_quantgov.gate.pointers.standing import inherited
from mlflow_quantgov.gate.statements.approving import CREATED
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.policy.matching import creation_gated, destination_kind, excludes_loggers
from mlflow_quantgov.version import __version__

Result = TypeVar("Result")


class Records:
    """Enters changes, refusals, policies and keys."""

    @contextmanager
    def _leaving(self: Any, name: str, version: str, stage: str, archives: bool) -> Iterator[None]:
        """Enter every version that leaves the protected stage where it stands as this one is moved, and let it go."""
        actor, source = current_actor()
        with self._sessions() as session, ExitStack() as grants:
            for held in list(all_pointers(session, workspaces.current(), name)):
                stays = held.is_at(stage)
                leaves = not stays if held.version == version else stays and archives
                if leaves and not held.is_alias and destination_kind(self._policy, name, held.destination) != "open":
                    entry = Entry("stage-left", actor, source, name, held.version, held.destination, "recorded",
                                  self._policy.digest)  # fmt: skip
                    grants.enter_context(granted(session, ledger.append(session, entry)))
            yield

    def _open_move(self: Any, name: str, version: str, destination: str, change: Callable[[], Result]) -> Result:
        """A move that needs no decision; entered only where the database could not tell that."""
        actor, source = current_actor()
        with self._sessions.transaction() as session:
            self._lock(session, name)
            self._refuse_stale(session)
            if not is_undecidable(name, destination):
                return change()
            entry = Entry("open", actor, source, name, version, destination, "recorded", self._policy.digest)
            with granted(session, ledger.append(session, entry)):
                return change()

    def _record(self: Any, session: Session, decision: Decision, *, changed: bool, creation: bool = False) -> LedgerRow:
        """Enter a decision; it is bound to the version that it judged."""
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
            decision.to_dict() | _basis(session, decision) | ({"creation": True} if creation else {}),
        )
        return ledger.append(session, entry)

    def _deny(self: Any, decision: Decision) -> None:
        """Record a denial in a transaction of its own, and refuse."""
        with self._sessions.transaction() as session:
            self._take_ledger(session)
            decision_id = self._record(session, decision, changed=False).decision_id
        raise refusal(decision.one_line(report=f"{static_prefix()}/quantgov/decisions/{decision_id}"))

    def _recorded(self: Any, kind: str, name: str, destination: str, change: Callable[[], Result]) -> Result:
        """A change that may always be made."""
        actor, source = current_actor()
        entry = Entry(kind, actor, source, name, None, destination, "recorded", self._policy.digest)
        with self._sessions.transaction() as session:
            self._lock(session, name)
            with granted(session, ledger.append(session, entry)):
                return change()

    def _logged(self: Any, name: str, create: Callable[[], Result]) -> Result:
        """Create a version; who did is entered where the policy bars whoever logged one from approving of it."""
        self._refuse_stale_creation(name)
        if not excludes_loggers(self._policy, name):
            return create()
        actor, source = current_actor()
        with self._sessions.transaction() as session:
            self._lock(session, name)
            made: Any = create()
            body = {"created": int(made.creation_timestamp), "source": made.source}
            entry = Entry(CREATED, actor, source, name, str(made.version), None, "recorded", self._policy.digest, body)
            ledger.append(session, entry)
        return made

    def _take_ledger(self: Any, session: Session) -> None:
        """Decide, and write it down: nobody else writes to the ledger until we commit.

        Raises:
            MlflowException: Policy or keys of this process are not in force (403).
        """
        ledger.lock(session)
        self._refuse_stale(session)

    def _refuse_stale(self: Any, session: Session) -> None:
        """Refuse to decide by files that are in force no longer: another server, or a new worker, has read others since.

        Raises:
            MlflowException: The newest row of the ledger about the policy, or the keys, names another digest (403).
        """
        stale = self._stale(session)
        if stale is not None:
            fix = "restart this server with the policy and keys that are in force"
            raise refusal(f"quantgov refused: {stale}. Fix: {fix}")

    def _stale(self: Any, session: Session) -> str | None:
        """Why this process's files are in force no longer; None where they are."""
        for kind, own in (("policy", self._policy.digest), ("keys", self._keys.digest)):
            newest = ledger.newest_digest(session, kind) or ""
            if newest != own:
                return (
                    f"the {kind} file that this server has read ({own[:19] or 'none'}) is not in force any "
                    f"more; another process on this database has read {newest[:19] or 'none'} since"
                )
        return None

    def _refuse_stale_creation(self: Any, name: str) -> None:
        """Refuse to create freely what the policy in force, where it is not ours, gates or wants to know the logger of.

        Raises:
            MlflowException: It does, or nobody here can read it (403).
        """
        with self._sessions() as session:
            if ledger.newest_digest(session, "policy") == self._policy.digest:
                return
            try:
                valid = in_force.kept_policy(session)
            except PolicyError:  # of a later release, perhaps: what it says is not guessed
                valid = None
            if valid is None or creation_gated(valid, name) or excludes_loggers(valid, name):
                self._refuse_stale(session)

    def _lock(self: Any, session: Session, name: str) -> None:
        """PostgreSQL: nobody else changes this model until we commit; SQLite holds its write lock already."""
        if session.get_bind().dialect.name != "sqlite":
            session.execute(select(SqlRegisteredModel).where(SqlRegisteredModel.name == name).with_for_update())

    def _hold(self: Any, session: Session, name: str, version: str) -> None:
        """PostgreSQL: wait for whoever changes this version's row, and have whoever began before us fail if they change it later.

        A script's transaction sees the ledger as it was when it began (REPEATABLE READ), so that no trigger of its own
        stops it; that it comes too late for the row does.
        """
        if session.get_bind().dialect.name != "sqlite":
            same = update(SqlModelVersion).values(version=SqlModelVersion.version)
            of = (SqlModelVersion.name == name, SqlModelVersion.version == int(version))
            session.execute(
                same.where(*of, SqlModelVersion.workspace == workspaces.current()),
                execution_options={"synchronize_session": False},
            )

    def _remember_files(self: Any, named: Collection[str]) -> None:
        """Keep each policy and keys file whole, and enter a change of one and the pointers that were here before us.

        Args:
            named: `policy`, `keys`: what this process has read from a file. What it took as it was in force it puts in force
                only where there was none, and what came into force after its server started it does not replace.
        """
        actor, source = current_actor()
        policy, keys, now = self._policy, self._keys, datetime.now(UTC)
        described = {"name": policy.name, "mode": policy.mode, "digest": policy.digest}
        trusted = {"digest": keys.digest, "trusted": [one.model_dump(mode="json") for one in keys.keys]}

        def entered(session: Session, kind: str, body: dict[str, Any]) -> LedgerRow:
            entry = Entry(kind, actor, source, decision="recorded", policy_digest=policy.digest, body=body)
            return ledger.append(session, entry)

        def is_new(session: Session, kind: str, body: dict[str, Any]) -> bool:
            newest = ledger.newest_digest(session, kind)  # what was put back is a change too
            return (kind in named or newest is None) and bool((newest or "") != body["digest"])

        with self._sessions.transaction() as session:
            ledger.lock(session)  # several workers start at once
            seen = in_force.seen_at_start(ledger.newest_seq(session))
            named = {kind for kind in named if ledger.newest_seq(session, kind) <= seen}
            if "policy" not in named and ledger.newest_digest(session, "policy") not in {None, policy.digest}:
                return  # a server has put another one in force, and nothing will be decided by ours
            from_before = list(inherited(session, policy, actor, source))
            if session.get(PolicyRow, policy.digest) is None:
                session.add(PolicyRow(digest=policy.digest, name=policy.name, text=policy.text, first_seen=now))
            if keys.keys and session.get(KeysRow, keys.digest) is None:
                session.add(KeysRow(digest=keys.digest, text=keys.to_text(), first_seen=now))
            told = knows(session, policy)
            if is_new(session, "policy", described):
                row = entered(session, "policy", described)
            elif not told:
                row = entered(
                    session, "policy", described | {"triggers": "enforced something else, and were told again"}
                )
            if not told:
                tell(session, policy, row)
            for entry in from_before:
                ledger.append(session, entry)
            if is_new(session, "keys", trusted):
                entered(session, "keys", trusted)


def _basis(session: Session, decision: Decision) -> dict[str, Any]:
    """What is needed to make a decision again: its facts are kept by their digest."""
    if decision.facts is None:
        return {}
    ledger.lock(session)  # two who keep the same facts at once
    content = snapshot(decision.facts)
    digest = sha256_digest(content)
    if session.get(FactsRow, digest) is None:
        session.add(FactsRow(digest=digest, content=content))
    return {"facts": digest, "engine": __version__, "requester": decision.facts.requester}

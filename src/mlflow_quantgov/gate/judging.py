"""How a decision is made before the transaction and bound inside it: mixed into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.gate.database.granting import granted
from mlflow_quantgov.gate.doors.actor import current_actor
from mlflow_quantgov.gate.doors.refusals import refusal
from mlflow_quantgov.gate.facts.siblings import has_changed
from mlflow_quantgov.gate.facts.sources import VersionRef
from mlflow_quantgov.gate.statements.intake import kept_marks
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Facts
from mlflow_quantgov.policy.matching import destination_kind, gated_destinations, observes

_ATTEMPTS = 3
_NEW = "new"
"""Number of a version that does not exist yet."""
Result = TypeVar("Result")


class Judging:
    """Judges what is asked for, and binds the change to what was judged."""

    def _gated(self: Any, name: str, version: str, destination: str, change: Callable[[], Result]) -> Result:
        if destination_kind(self._policy, name, destination) == "open":
            return self._open_move(name, version, destination, change)
        self._settle(name, version)
        for _ in range(_ATTEMPTS):
            before = self.reference(name, version)
            facts, decision = self._judge(before, destination)
            if not decision.allowed and not observes(self._policy, name):
                self._deny(decision)
            with self._sessions.transaction() as session:
                self._lock(session, name)
                self._hold(session, name, before.version)
                self._take_ledger(session)  # no version that it rests on is deleted from here on
                if self.reference(name, version) == before and self._is_as_judged(session, facts):
                    with granted(session, self._record(session, decision, changed=True)):
                        return change()
        raise refusal(
            f"quantgov refused {name} version {version} at {destination}: it kept changing while it was judged."
        )

    def _gated_creation(self: Any, name: str, source: str, create: Callable[[], ModelVersion]) -> ModelVersion:
        """Create a version of what was judged; it has no number to be held by before."""
        for _ in range(_ATTEMPTS):
            decision = self._judge_creation(name, source)
            if not decision.allowed and not observes(self._policy, name):
                self._deny(decision)
            with self._sessions.transaction() as session:
                self._lock(session, name)
                self._take_ledger(session)  # what it is a copy of is not deleted, and made again, from here on
                if self._is_as_judged(session, decision.facts):
                    created = create()
                    self._record(session, replace(decision, version=str(created.version)), changed=True, creation=True)
                    return created
        raise refusal(f"quantgov refused a version of {name}: what it is made of kept changing while it was judged.")

    def _judge(self: Any, ref: VersionRef, destination: str) -> tuple[Facts, Decision]:
        """Facts and decision; whatever goes wrong on the way refuses."""
        try:
            facts = self.quantgov_facts(ref.name, ref.version)
        except (MlflowException, SQLAlchemyError):
            raise
        except Exception as error:  # noqa: BLE001  (fail closed: what cannot be gathered cannot be allowed)
            problem = error.what if isinstance(error, QuantgovError) else f"{type(error).__name__}: {str(error)[:200]}"
            facts = Facts(
                ref.name, ref.version, "unknown", datetime.now(UTC), current_actor()[0], problems=(problem,),
                created=ref.creation_time, source=ref.source, location=ref.location,
            )  # fmt: skip
        return facts, decide(self._policy, facts, destination)

    def _judge_creation(self: Any, name: str, source: str) -> Decision:
        """The decision on a version that does not exist yet: it must be good enough for every gated destination."""
        destinations = gated_destinations(self._policy, name) or ["@champion"]
        ref = VersionRef(name, _NEW, source, 0)
        gatherer = replace(self._gatherer, registry=_Pending(self, ref))
        facts = gatherer.gather(name, _NEW, current_actor()[0])
        decisions = [decide(self._policy, facts, destination) for destination in destinations]
        return next((one for one in decisions if not one.allowed), decisions[0])

    def _is_as_judged(self: Any, session: Session, facts: Facts | None) -> bool:
        """Whether versions and evidence are still those that a decision was made from."""
        return facts is not None and self._same_versions(facts) and self._same_evidence(session, facts)

    def _same_versions(self: Any, facts: Facts) -> bool:
        """Whether every version that was looked at is still the same: a parent may have been deleted, or made again."""
        seen = tuple(one for one in facts.seen if one[1] != _NEW)
        try:
            found = [self.reference(name, version) for name, version, _, _ in seen]
        except MlflowException:
            return False
        return seen == tuple((one.name, one.version, one.creation_time, one.source) for one in found)

    def _same_evidence(self: Any, session: Session, facts: Facts) -> bool:
        subjects = {one.weights for one in (facts.model, facts.lineage.parent if facts.lineage else None) if one}
        known = frozenset(mark for one in facts.evidence for mark in one.marks)
        return kept_marks(session, subjects) == known and not has_changed(session, facts, self._keys)


class _Pending:
    """A registry in which one version is about to be created."""

    def __init__(self, store: Any, ref: VersionRef) -> None:
        self._store, self._ref = store, ref

    def reference(self, name: str, version: str) -> VersionRef:
        return self._ref if version == _NEW else self._store.reference(name, version)

    def references(self, name: str) -> Iterable[VersionRef]:
        return self._store.references(name)

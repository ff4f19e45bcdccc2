"""Other registered versions of the same parent that were evaluated: what "start at 4 bit, measure" is shown by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from mlflow.exceptions import MlflowException
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import EvidenceError, QuantgovError
from mlflow_quantgov.evidence.predicates import SpotCheck, TaskEval
from mlflow_quantgov.evidence.signing import TrustedKeys, read_attached
from mlflow_quantgov.flavor.layout import LineageRecord
from mlflow_quantgov.gate.database.tables import StatementRow
from mlflow_quantgov.gate.facts.copies import merged, unkept
from mlflow_quantgov.gate.facts.registries import Registry
from mlflow_quantgov.gate.facts.sources import VersionRef
from mlflow_quantgov.gate.statements.intake import kept, kept_marks
from mlflow_quantgov.lineage import ModelFacts, structure_problems
from mlflow_quantgov.policy.facts import Evidence, Facts, Sibling, narrowest_bits


class Read(Protocol):
    """What one version's files hold."""

    @property
    def model(self) -> ModelFacts | None:
        """Digests and inspection."""

    @property
    def record(self) -> LineageRecord | None:
        """What was written down at logging."""

    @property
    def copies(self) -> tuple[tuple[str, bytes], ...]:
        """Name and bytes of the statements beside the model."""


class Siblings:
    """Finds them; each one's files are read and hashed by the server."""

    def __init__(
        self,
        registry: Registry,
        sessions: Callable[[], AbstractContextManager[Session]] | None,
        read: Callable[[VersionRef], Read],
        may_be: Callable[[VersionRef, str], bool],
        is_stranger: Callable[[VersionRef, ModelFacts], bool],
        keys: TrustedKeys,
        now: datetime,
    ) -> None:
        """Use a registry.

        Args:
            registry: Where versions are.
            sessions: Sessions of the gate's database; None on a client, which sees the copies beside versions of the same
                model alone.
            read: Reads a version's files.
            may_be: False where a version is known to hold other weights than these, or to have another parent; that spares
                reading it, and its evidence.
            is_stranger: Whether the weights of a version have nothing in common with the parent's, whatever was written
                down at logging; reads both whole, and is asked last.
            keys: Whose signatures are believed.
            now: When it is asked.
        """
        self._registry, self._sessions, self._read = registry, sessions, read
        self._may_be, self._is_stranger = may_be, is_stranger
        self._keys, self._now = keys, now

    def of(self, ref: VersionRef, facts: Facts, least_bits: float) -> tuple[Sibling, ...]:
        """Evaluated versions of the same parent whose narrowest matrix has at least so many bits.

        Args:
            ref: The version that is judged.
            facts: Its files and its parent's.
            least_bits: The width.
        """
        assert facts.model is not None and facts.lineage is not None and facts.lineage.parent is not None
        found: dict[str, Sibling] = {}
        evaluated = self._taken_in(facts) if self._sessions is not None else self._beside(ref)
        for other, evidence in evaluated:
            about = tuple(one for one in evidence if _compares_with(one, facts.lineage.parent.weights))
            if about and about[0].subject not in {facts.model.weights, *found}:
                sibling = self._sibling(other, about, facts.lineage.parent, least_bits)
                if sibling is not None:
                    checks = tuple(one for one in evidence if isinstance(one.content, SpotCheck))
                    found[sibling.model.weights] = replace(sibling, spot_checks=checks)
        return tuple(found.values())

    def _taken_in(self, facts: Facts) -> Iterator[tuple[VersionRef, list[Evidence]]]:
        """Versions with the task evaluations that the gate itself took in, first received first."""
        assert self._sessions is not None
        with self._sessions() as session:
            columns = (StatementRow.subject, StatementRow.model, StatementRow.version, StatementRow.version_created)
            query = select(*columns).where(StatementRow.kind == TaskEval.KIND).order_by(StatementRow.received_at)
            rows = dict.fromkeys(row.tuple() for row in session.execute(query))
        for subject, model, version, created in rows:
            ref = self._there(model, version)
            # A number that was given away again after a deletion is another version.
            if ref is not None and ref.creation_time == created and self._may_be(ref, subject):
                with self._sessions() as session:
                    evidence = kept(session, {subject}, self._keys, self._now)
                yield ref, [one for one in evidence if one.kind in {TaskEval.KIND, SpotCheck.KIND}]

    def _beside(self, ref: VersionRef) -> Iterator[tuple[VersionRef, list[Evidence]]]:
        """Versions of the same model with the copies of task evaluations beside them."""
        for other in self._registry.references(ref.name):
            found = self._files(other) if other.version != ref.version else None
            if found is None or found.model is None:
                continue
            parsed = (self._parsed(name, data) for name, data in found.copies)
            yield other, merged(one for one in parsed if one and one.subject == found.model.weights)

    def _parsed(self, name: str, data: bytes) -> Evidence | None:
        """A copy of a task evaluation or of a spot-check; None for anything else, and for one that was altered."""
        try:
            found = unkept(read_attached(data, where=name), self._keys, self._now, name)
        except EvidenceError:
            return None
        return found if isinstance(found.content, TaskEval | SpotCheck) else None

    def _there(self, model: str, version: str) -> VersionRef | None:
        try:
            return self._registry.reference(model, version)
        except MlflowException:
            return None

    def _files(self, ref: VersionRef) -> Read | None:
        try:
            return self._read(ref)
        except (QuantgovError, MlflowException):
            return None

    def _sibling(
        self, ref: VersionRef, evidence: tuple[Evidence, ...], parent: ModelFacts, least_bits: float
    ) -> Sibling | None:
        """The version, where its own files say that it is wide enough and built as the parent."""
        found = self._files(ref)
        if found is None or found.model is None or found.model.weights != evidence[0].subject:
            return None
        claimed = found.record.parent if found.record else None
        bits = narrowest_bits(found.model.quantization)
        if claimed is None or claimed.get("weights") != parent.weights or bits is None or bits < least_bits:
            return None
        if structure_problems(found.model.structure, parent) or self._is_stranger(ref, found.model):
            return None
        return Sibling(f"models:/{ref.name}/{ref.version}", found.model, evidence)


def _compares_with(one: Evidence, parent: str) -> bool:
    """Whether a task evaluation is of its subject with this parent."""
    content: Any = one.content
    return (
        isinstance(content, TaskEval)
        and content.parent.weights == parent
        and content.quantized.weights == one.subject != parent
    )


def has_changed(session: Session, facts: Facts, keys: TrustedKeys) -> bool:
    """Whether something has come about one of the siblings, since they were gathered, that a decision would have read.

    Args:
        session: Of the gate's database.
        facts: As they were gathered.
        keys: Whose signatures are believed.
    """
    for sibling in facts.siblings:
        assert facts.lineage is not None and facts.lineage.parent is not None
        subject, parent = {sibling.model.weights}, facts.lineage.parent.weights
        read = (*sibling.evidence, *sibling.aside, *sibling.spot_checks)
        known = frozenset(mark for one in read for mark in one.marks)
        if kept_marks(session, subject) == known:
            continue
        there = kept(session, subject, keys, facts.now)
        there = [one for one in there if isinstance(one.content, SpotCheck) or _compares_with(one, parent)]
        if frozenset(mark for one in there for mark in one.marks) != known:
            return True
    return False

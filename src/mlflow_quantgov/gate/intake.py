"""Statements are taken in once, validated and recomputed, and their bytes kept; nothing overwrites them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.statement import parse_statement
from mlflow_quantgov.gate.sources import VersionRef
from mlflow_quantgov.gate.tables import StatementRow
from mlflow_quantgov.policy.facts import Evidence

CLOCK_SKEW = timedelta(minutes=10)


def take_in(
    session: Session,
    ref: VersionRef,
    data: bytes,
    subjects: Collection[str],
    *,
    actor: str | None,
    actor_source: str | None,
    where: str = "the statement",
) -> Evidence:
    """Validate a statement, recompute what it claims, and keep it.

    Args:
        session: Of the gate's database; the caller commits.
        ref: The version that it was attached to.
        data: Its bytes.
        subjects: Weights digests that it may be about: this version's, and its parent's.
        actor: Who attached it; None where it was found beside the model.
        actor_source: How that is known.
        where: What to call it in an error.

    Raises:
        EvidenceError: Malformed, about other bytes, or its summary is not what its records give.
    """
    statement = parse_statement(data, where=where)
    if statement.subject_digest not in subjects:
        raise EvidenceError(
            f"{where} is about {statement.subject_digest[:19]}, not about {ref.name} version {ref.version} or its parent.",
            why="A statement about other bytes is no statement about these.",
            fix=f"measure this version: quantgov check models:/{ref.name}/{ref.version} --to @champion",
        )
    measured, now = statement.content().provenance.measured_at, datetime.now(UTC)
    if measured > now + CLOCK_SKEW:
        raise EvidenceError(
            f"{where} says that it was measured at {measured.isoformat()[:19]}, which is still to come.",
            why="The age of evidence counts, and nothing is measured in the future.",
            fix="set the clock of the measuring machine, and measure again",
        )
    known = session.get(StatementRow, statement.digest)
    if known is None:
        session.add(
            StatementRow(
                digest=statement.digest,
                subject=statement.subject_digest,
                kind=statement.kind,
                model=ref.name,
                version=ref.version,
                version_created=ref.creation_time,
                content=statement.to_bytes(),
                actor=actor,
                actor_source=actor_source,
                received_at=now,
            )
        )
        session.flush()
        return Evidence(statement, statement.content(), statement.digest, actor, now)
    return _of_row(known)


def kept(session: Session, subjects: Collection[str]) -> list[Evidence]:
    """Everything that was taken in about some weights, oldest first."""
    query = select(StatementRow).where(StatementRow.subject.in_(list(subjects))).order_by(StatementRow.received_at)
    return [_of_row(row) for row in session.execute(query).scalars()]


def kept_digests(session: Session, subjects: Collection[str]) -> frozenset[str]:
    """Digests of everything that was taken in about some weights."""
    query = select(StatementRow.digest).where(StatementRow.subject.in_(list(subjects)))
    return frozenset(session.execute(query).scalars())


def _of_row(row: StatementRow) -> Evidence:
    statement = parse_statement(row.content, where=row.digest)
    # SQLite keeps no time zone; what was written was UTC.
    received = row.received_at if row.received_at.tzinfo else row.received_at.replace(tzinfo=UTC)
    return Evidence(statement, statement.content(), statement.digest, row.actor, received)

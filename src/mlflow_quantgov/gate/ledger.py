"""The append-only, hash-chained record of what was asked and decided."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import desc, func, select, text
from sqlalchemy.orm import Session

from mlflow_quantgov.evidence.statement import canonical_json
from mlflow_quantgov.gate.tables import LedgerRow

GENESIS = "0" * 64
_LOCK = 0x6C65646765  # "ledge": PostgreSQL's advisory lock that serialises appends
_CHAINED = ("seq", "decision_id", "created_at", "kind", "model", "version", "destination", "decision", "actor",
            "actor_source", "policy_digest", "body", "previous_hash")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """What is to be recorded."""

    kind: str
    """`promotion`, `denial`, `alias-removed`, `deletion`, `rename`, `policy`, `keys`, `inherited`, `statement`, `draw`."""
    actor: str
    actor_source: str
    model: str | None = None
    version: str | None = None
    destination: str | None = None
    decision: str | None = None
    """`allowed`, `refused`, `observed` (would be refused), `inherited`, `recorded`."""
    policy_digest: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    decision_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True)
class Verification:
    """Whether the chain is unbroken."""

    ok: bool
    rows: int
    first_bad: int | None


def lock(session: Session) -> None:
    """Let nobody else append until this transaction ends; SQLite's write lock does that already."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def append(session: Session, entry: Entry) -> LedgerRow:
    """Add a row inside the caller's transaction; appends are serialised by the database."""
    lock(session)
    last = session.execute(select(LedgerRow).order_by(desc(LedgerRow.seq)).limit(1)).scalar_one_or_none()
    row = LedgerRow(
        seq=last.seq + 1 if last else 1,
        decision_id=entry.decision_id,
        created_at=datetime.now(UTC).isoformat(),
        kind=entry.kind,
        model=entry.model,
        version=entry.version,
        destination=entry.destination,
        decision=entry.decision,
        actor=entry.actor,
        actor_source=entry.actor_source,
        policy_digest=entry.policy_digest,
        body=canonical_json(entry.body).decode(),
        previous_hash=last.row_hash if last else GENESIS,
    )
    row.row_hash = _hash(row)
    session.add(row)
    session.flush()
    return row


def verify(session: Session) -> Verification:
    """Recompute the chain from its first row."""
    previous, count = GENESIS, 0
    for row in session.execute(select(LedgerRow).order_by(LedgerRow.seq)).scalars():
        count += 1
        if row.seq != count or row.previous_hash != previous or row.row_hash != _hash(row):
            total = session.execute(select(func.count()).select_from(LedgerRow)).scalar_one()
            return Verification(False, total, row.seq)
        previous = row.row_hash
    return Verification(True, count, None)


def rows(session: Session, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Rows, newest first, without their bodies; `about` is what a statement is about (`task-eval`), `waived` the checks that were waived."""
    query = select(LedgerRow).order_by(desc(LedgerRow.seq)).limit(limit)
    if model is not None:
        query = query.where(LedgerRow.model == model)
    return [_public(row) for row in session.execute(query).scalars()]


def decision(session: Session, decision_id: str) -> dict[str, Any] | None:
    """The body of one row: the whole decision."""
    row = session.execute(select(LedgerRow).where(LedgerRow.decision_id == decision_id)).scalar_one_or_none()
    if row is None:
        return None
    body: dict[str, Any] = json.loads(row.body)
    return {**body, "decision_id": row.decision_id}


def newest_body(session: Session, kind: str) -> dict[str, Any]:
    """The body of the newest row of a kind, with the row's policy digest where it names none; empty where there is none."""
    row = session.execute(
        select(LedgerRow).where(LedgerRow.kind == kind).order_by(desc(LedgerRow.seq)).limit(1)
    ).scalar_one_or_none()
    if row is None:
        return {}
    body: dict[str, Any] = json.loads(row.body)
    return {"digest": row.policy_digest} | body


def newest_of(session: Session, kind: str, model: str, version: str) -> list[dict[str, Any]]:
    """Rows of a kind about one version, newest first: `actor`, `actor_source`, `body`."""
    query = select(LedgerRow).where(LedgerRow.kind == kind, LedgerRow.model == model, LedgerRow.version == version)
    return [
        {"actor": row.actor, "actor_source": row.actor_source, "body": json.loads(row.body)}
        for row in session.execute(query.order_by(desc(LedgerRow.seq))).scalars()
    ]


def is_empty(session: Session) -> bool:
    """Whether nothing was ever recorded."""
    return session.execute(select(LedgerRow.seq).limit(1)).first() is None


def _public(row: LedgerRow) -> dict[str, Any]:
    names = ("seq", "decision_id", "created_at", "kind", "model", "version", "destination", "decision", "actor",
             "actor_source", "policy_digest", "row_hash")  # fmt: skip
    body = json.loads(row.body) if row.kind in {"statement", "promotion", "denial"} else {}
    about = body.get("kind") if row.kind == "statement" else None
    return {name: getattr(row, name) for name in names} | {"about": about, "waived": body.get("waived", [])}


def _hash(row: LedgerRow) -> str:
    return hashlib.sha256(canonical_json({name: getattr(row, name) for name in _CHAINED})).hexdigest()

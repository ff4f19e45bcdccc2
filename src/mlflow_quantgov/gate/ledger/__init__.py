"""The append-only, hash-chained record of what was asked and decided."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import desc, func, select, text
from sqlalchemy.orm import Session

from mlflow_quantgov.evidence.statement import canonical_json
from mlflow_quantgov.gate.database import workspaces
from mlflow_quantgov.gate.database.tables import LedgerRow
from mlflow_quantgov.gate.ledger.chain import CHAINED, GENESIS, WHOLE, Verification, hash_of, walk

_LOCK = 0x6C65646765  # "ledge": PostgreSQL's advisory lock that serialises appends


@dataclass(frozen=True)
class Entry:
    """What is to be recorded."""

    kind: str
    """`promotion`, `denial`, `alias-removed`, `deletion`, `rename`, `policy`, `keys`, `inherited`, `statement`, `draw`,
    `stage-left`, `created` (who logged a version), `open` (a move that needs no decision, where the database could not tell)."""
    actor: str
    actor_source: str
    model: str | None = None
    version: str | None = None
    destination: str | None = None
    decision: str | None = None
    """`allowed`, `refused`, `observed` (would be refused), `inherited`, `recorded`."""
    policy_digest: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    workspace: str = field(default_factory=workspaces.current)
    """MLflow's workspace in which the model lies."""
    decision_id: str = field(default_factory=lambda: str(uuid.uuid4()))


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
        workspace=None if entry.model is None or entry.workspace == workspaces.DEFAULT else entry.workspace,
    )
    row.row_hash = hash_of({name: getattr(row, name) for name in (*CHAINED, "workspace")})
    session.add(row)
    session.flush()
    return row


def whole_rows(session: Session) -> Iterator[dict[str, Any]]:
    """Every row from the first, a few at a time."""
    query = select(*(getattr(LedgerRow, name) for name in WHOLE)).order_by(LedgerRow.seq)
    for row in session.execute(query.execution_options(yield_per=1000)).mappings():
        yield dict(row)


def verify(session: Session, wanted: Collection[int] = ()) -> Verification:
    """Recompute the chain from its first row; `wanted` are rows whose hashes are asked for."""
    return walk(whole_rows(session), wanted)


def rows(session: Session, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Rows, newest first, without their bodies; `about` is what a statement is about (`task-eval`), `waived` the checks that were waived.

    Args:
        session: To read with.
        model: Only rows about this one, of the workspace of the request.
        limit: The most rows.
    """
    query = select(LedgerRow).order_by(desc(LedgerRow.seq)).limit(limit)
    if model is not None:
        here = func.coalesce(LedgerRow.workspace, workspaces.DEFAULT) == workspaces.current()
        query = query.where(LedgerRow.model == model, here)
    return [_public(row) for row in session.execute(query).scalars()]


def row(session: Session, decision_id: str) -> dict[str, Any] | None:
    """One row without its body, as `rows` gives it."""
    found = _by_id(session, decision_id)
    return None if found is None else _public(found)


def decision(session: Session, decision_id: str) -> dict[str, Any] | None:
    """The body of one row: the whole decision."""
    found = _by_id(session, decision_id)
    return None if found is None else {**json.loads(found.body), "decision_id": found.decision_id}


def newest_digest(session: Session, kind: str) -> str | None:
    """Digest that the newest row about a policy or about keys names; None where there is no such row."""
    found = _newest(session, kind)
    if found is None:
        return None
    # Rows of before have a policy's in its column.
    digest: str = json.loads(found.body).get("digest", found.policy_digest)
    return digest


def newest_seq(session: Session, kind: str | None = None) -> int:
    """Number of the newest row, or of the newest one about a policy or about keys; 0 where there is none."""
    if kind is None:
        return session.scalar(select(func.max(LedgerRow.seq))) or 0
    found = _newest(session, kind)
    return 0 if found is None else found.seq


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


def _by_id(session: Session, decision_id: str) -> LedgerRow | None:
    return session.execute(select(LedgerRow).where(LedgerRow.decision_id == decision_id)).scalar_one_or_none()


def _newest(session: Session, kind: str) -> LedgerRow | None:
    """The newest row of a kind that is about no model, by the index."""
    query = select(LedgerRow).where(LedgerRow.kind == kind, LedgerRow.model.is_(None))
    return session.execute(query.order_by(desc(LedgerRow.seq)).limit(1)).scalar_one_or_none()


def _public(row: LedgerRow) -> dict[str, Any]:
    names = ("seq", "decision_id", "created_at", "kind", "model", "version", "destination", "decision", "actor",
             "actor_source", "policy_digest", "row_hash")  # fmt: skip
    body = json.loads(row.body) if row.kind in {"statement", "promotion", "denial"} else {}
    about = body.get("kind") if row.kind == "statement" else None
    workspace = row.workspace or workspaces.DEFAULT
    return {name: getattr(row, name) for name in names} | {
        "workspace": workspace, "about": about, "waived": body.get("waived", []),
    }  # fmt: skip

"""The signatures of kept statements: each kept once with the time at which it came, and looked at anew for every decision.

A signature is its bytes over a payload. The key's id beside them is a hint that anybody can write, so it makes no signature
another one: neither is one kept again under another id, nor does it come anew.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.signing import Envelope, Signature, TrustedKeys, examine
from mlflow_quantgov.gate.database.tables import SignatureRow

MOST_UNTRUSTED = 16
"""Signatures by unknown keys that are kept of one statement: each is tried against every trusted key, each time."""


def keep(
    session: Session,
    statement: str,
    content: bytes,
    envelope: Envelope,
    found: Signature,
    keys: TrustedKeys,
    *,
    actor: str | None,
    actor_source: str | None,
    now: datetime,
) -> None:
    """Keep a signature, unless it is known, or its signer has signed this statement before: what was said once stays as old.

    Args:
        session: Of the gate's database; the caller commits.
        statement: Digest of the statement that it signs.
        content: The statement's canonical bytes.
        envelope: As it came.
        found: Whose it is.
        keys: Whose signatures are believed.
        actor: Who attached it; None where it was found beside the model.
        actor_source: How that is known.
        now: By the gate's clock.

    Raises:
        EvidenceError: The statement has enough signatures by untrusted keys.
    """
    kept = [_envelope(row, content) for row in _rows(session, [statement])]
    if any((one.signature, one.payload) == (envelope.signature, envelope.payload) for one in kept):
        return
    signer = keys.find(found.key) if found.is_trusted else None
    if signer is not None and any(one.fits(signer.public) for one in kept):
        return
    if found.standing == "untrusted":
        query = select(func.count()).select_from(SignatureRow).where(SignatureRow.statement == statement)
        if session.execute(query).scalar_one() >= MOST_UNTRUSTED:
            raise EvidenceError(
                f"{statement[:19]} has {MOST_UNTRUSTED} signatures already, and the key of this one is not trusted here.",
                why="A statement that anybody could cover with signatures would take ever longer to judge.",
                fix="quantgov keys trust NAME.pub.pem --name NAME --role measurer   (on the server, then restart it)",
            )
    session.add(
        SignatureRow(
            digest=envelope.digest,
            statement=statement,
            key=found.key,
            signature=envelope.signature,
            payload=None if envelope.payload == content else envelope.payload,
            actor=actor,
            actor_source=actor_source,
            received_at=now,
        )
    )
    session.flush()


def kept_of(
    session: Session, contents: dict[str, bytes], keys: TrustedKeys, now: datetime
) -> dict[str, tuple[Signature, ...]]:
    """Signatures of some statements, valid ones first, then in the order in which they came.

    Args:
        session: Of the gate's database.
        contents: Digest to canonical bytes of each statement.
        keys: Whose signatures are believed.
        now: When it is asked.
    """
    found: dict[str, list[Signature]] = {}
    for row in _rows(session, contents):
        envelope, received = _envelope(row, contents[row.statement]), utc(row.received_at)
        one = examine(envelope, keys, received, now)
        if one.standing == "bad":
            # It was kept when nobody here knew the key that its writer named; another key, trusted since, may have made it.
            unnamed = examine(replace(envelope, key=""), keys, received, now)
            one = unnamed if unnamed.is_trusted else one
        found.setdefault(row.statement, []).append(one)
    return {digest: tuple(sorted(all_of, key=lambda one: not one.is_valid)) for digest, all_of in found.items()}


def marks(session: Session, statements: Collection[str]) -> frozenset[str]:
    """What identifies the signatures of some statements, to see whether one has come."""
    return frozenset(f"{row.statement} {utc(row.received_at)}" for row in _rows(session, statements))


def utc(moment: datetime) -> datetime:
    """A time of the database; SQLite keeps no time zone, and what was written was UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _envelope(row: SignatureRow, content: bytes) -> Envelope:
    return Envelope(content if row.payload is None else row.payload, row.key, row.signature)


def _rows(session: Session, statements: Collection[str]) -> list[SignatureRow]:
    """Each signature as it first came: two requests at once, or an earlier version, may have kept it under several hints."""
    query = (
        select(SignatureRow)
        .where(SignatureRow.statement.in_(list(statements)))
        .order_by(SignatureRow.received_at, SignatureRow.digest)
    )
    first: dict[tuple[str, bytes, bytes | None], SignatureRow] = {}
    for row in session.execute(query).scalars():
        first.setdefault((row.statement, row.signature, row.payload), row)
    return list(first.values())

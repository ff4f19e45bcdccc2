"""Statements are taken in once, validated and recomputed, and their bytes kept; nothing overwrites them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import EvidenceError, pasted
from mlflow_quantgov.evidence.predicates import Predicate, Waiver
from mlflow_quantgov.evidence.signing import Signature, TrustedKeys, examine, read_attached, refuse_bad
from mlflow_quantgov.evidence.statement import parse_statement
from mlflow_quantgov.gate.database.tables import StatementRow
from mlflow_quantgov.gate.doors.actor import is_verified
from mlflow_quantgov.gate.facts.sources import VersionRef
from mlflow_quantgov.gate.statements import signatures
from mlflow_quantgov.policy.facts import Evidence
from mlflow_quantgov.policy.noted import Noted, strangers
from mlflow_quantgov.policy.waivers import ROLE

CLOCK_SKEW = timedelta(minutes=10)


def take_in(
    session: Session,
    ref: VersionRef,
    data: bytes,
    behaviours: Mapping[str, str],
    keys: TrustedKeys,
    *,
    actor: str | None,
    actor_source: str | None,
    where: str = "the statement",
) -> Evidence:
    """Validate a statement and its signature, recompute what it claims, and keep it.

    A signature by a key that is not trusted is kept and counts for nothing; one that does not fit is refused.

    Args:
        session: Of the gate's database; the caller commits.
        ref: The version that it was attached to.
        data: Its bytes, bare or in an envelope.
        behaviours: Weights digests that it may be about, this version's and its parent's, each with the digest of what else
            decides the answers there.
        keys: Whose signatures are believed.
        actor: Who attached it; None where it was found beside the model.
        actor_source: How that is known.
        where: What to call it in an error.

    Raises:
        EvidenceError: Malformed, about other bytes, imported for another pair, its summary is not what its records give, its signature does not fit,
            or it is a waiver that nobody with the role has signed for this version.
    """
    attached, now = read_attached(data, where=where), datetime.now(UTC)
    statement, content = attached.statement, attached.statement.content()
    if statement.subject_digest not in behaviours:
        uri = pasted(f"models:/{ref.name}/{ref.version}")
        raise EvidenceError(
            f"{where} is about {statement.subject_digest[:19]}, not about {ref.name} version {ref.version} or its parent.",
            why="A statement about other bytes is no statement about these.",
            fix=f"measure this version: quantgov check {uri} --to @champion",
        )
    measured = content.provenance.measured_at
    if measured > now + CLOCK_SKEW:
        raise EvidenceError(
            f"{where} says that it was measured at {measured.isoformat()[:19]}, which is still to come.",
            why="The age of evidence counts, and nothing is measured in the future.",
            fix="set the clock of the measuring machine, and measure again",
        )
    found = examine(attached.envelope, keys, now, now) if attached.envelope else None
    if found is not None:
        refuse_bad(found, keys, where)
    if statement.kind == Waiver.KIND:
        _must_hold(content, found, ref, now, where)
    canonical = statement.to_bytes()
    if session.get(StatementRow, statement.digest) is None:
        _refuse_strangers(content, behaviours, ref, where)
        noted = Noted.of(content, behaviours) or Noted()
        session.add(
            StatementRow(
                digest=statement.digest,
                subject=statement.subject_digest,
                kind=statement.kind,
                model=ref.name,
                version=ref.version,
                version_created=ref.creation_time,
                content=canonical,
                actor=actor,
                actor_source=actor_source,
                received_at=now,
                behaviour=noted.version,
                parent_behaviour=noted.parent,
            )
        )
        session.flush()
    if attached.envelope is not None and found is not None:
        signatures.keep(
            session,
            statement.digest,
            canonical,
            attached.envelope,
            found,
            keys,
            actor=actor,
            actor_source=actor_source,
            now=now,
        )
    row = session.get(StatementRow, statement.digest)
    assert row is not None
    return _of_rows(session, [row], keys, now)[0]


def kept(session: Session, subjects: Collection[str], keys: TrustedKeys, now: datetime) -> list[Evidence]:
    """Everything that was taken in about some weights, oldest first, with what its signatures are worth now."""
    query = select(StatementRow).where(StatementRow.subject.in_(list(subjects))).order_by(StatementRow.received_at)
    return _of_rows(session, list(session.execute(query).scalars()), keys, now)


def kept_marks(session: Session, subjects: Collection[str]) -> frozenset[str]:
    """What identifies everything that was taken in about some weights, signatures included."""
    query = select(StatementRow.digest).where(StatementRow.subject.in_(list(subjects)))
    digests = frozenset(session.execute(query).scalars())
    return digests | signatures.marks(session, digests)


def _of_rows(session: Session, rows: list[StatementRow], keys: TrustedKeys, now: datetime) -> list[Evidence]:
    signed = signatures.kept_of(session, {row.digest: row.content for row in rows}, keys, now)
    found = []
    for row in rows:
        statement = parse_statement(row.content, where=row.digest)
        content, noted = statement.content(), _noted_in(row)
        received = signatures.utc(row.received_at)
        found.append(
            Evidence(
                statement,
                noted.fill(content) if noted else content,
                statement.digest,
                row.actor,
                received,
                signed.get(statement.digest, ()),
                is_verified(row.actor_source),
                noted,
            )
        )
    return found


def _refuse_strangers(content: Predicate, behaviours: Mapping[str, str], ref: VersionRef, where: str) -> None:
    """Refuse imported records of which nobody could note whose they are, instead of taking them for everybody's."""
    for weights in strangers(content, behaviours):
        uri = pasted(f"models:/{ref.name}/{ref.version}")
        raise EvidenceError(
            f"{where} was imported and is of {weights[:19]} too, which is neither {ref.name} version {ref.version} nor its "
            "parent, as far as they can be read.",
            why="Imported records name weights alone; which configuration and tokenizer ran is noted from the version that "
            "they are attached to, and from its parent.",
            fix=f"attach it to the version that was measured, or measure this one: quantgov evaluate {uri} --tasks tasks/",
        )


def _noted_in(row: StatementRow) -> Noted | None:
    if row.behaviour is None and row.parent_behaviour is None:
        return None
    return Noted(row.behaviour, row.parent_behaviour)


def _must_hold(content: Predicate, signature: Signature | None, ref: VersionRef, now: datetime, where: str) -> None:
    """Refuse a waiver that would count for nothing, while the one who made it still looks on."""
    why = "A waiver takes the responsibility for one check of one version, so it must be clear who does, and for which."
    uri = pasted(f"models:/{ref.name}/{ref.version}")
    fix = f"quantgov waive {uri} CHECK --reason REASON --until DATE --key NAME.key.pem"
    problem = None
    if not isinstance(content, Waiver):
        problem = "is of an earlier form, which does not name its version"
    elif (content.model, content.version, content.created) != (ref.name, ref.version, ref.creation_time):
        problem = (
            f"is for {content.model} version {content.version}, not for {ref.name} version {ref.version} as it is now"
        )
    elif content.until <= now:
        problem = f"ended on {content.until.isoformat()[:10]}"
    elif signature is None:
        problem = "is signed by nobody"
    elif not signature.is_valid:
        problem = f"is signed by {signature.words()}, whose key is {signature.standing} here"
    elif ROLE not in signature.roles:
        problem = (
            f"is signed by {signature.name}, whose key has not the role {ROLE} but {' and '.join(signature.roles)}"
        )
    if problem is not None:
        raise EvidenceError(f"The waiver {where} {problem}.", why=why, fix=fix)

"""Signed checkpoints of the ledger: kept elsewhere, they show what somebody with the whole database has taken away or rewritten.

A checkpoint is an in-toto statement about the hash of one row, in a DSSE envelope like evidence (docs/explanation/ledger.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from mlflow_quantgov.errors import EvidenceError, UsageError, no_such_file
from mlflow_quantgov.evidence.predicates.base import TYPE_BASE
from mlflow_quantgov.evidence.signing import (
    Envelope,
    PublicKey,
    Signer,
    TrustedKeys,
    examine,
    read_envelope,
    sign_payload,
)
from mlflow_quantgov.evidence.statement import STATEMENT_TYPE, canonical_json, strict_json

TYPE = f"{TYPE_BASE}/ledger-checkpoint/v1"
ROLE = "auditor"
MAX_BYTES = 20_000
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class LedgerCheckpoint(BaseModel):
    """How far a ledger had come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ledger: Hash
    """Hash of its first row: which ledger it is."""
    seq: int = Field(ge=1)
    """Number of its last row."""
    row_hash: Hash
    """Hash of that row, and so of everything before it."""
    signed_at: AwareDatetime
    """By the clock of whoever signed."""


@dataclass(frozen=True)
class Compared:
    """One checkpoint against a ledger."""

    file: str
    seq: int
    ok: bool
    problem: str = ""
    first_bad: int | None = None


def take(found: dict[str, Any], signer: Signer, now: datetime | None = None) -> Envelope:
    """Sign how far a verified ledger has come.

    Args:
        found: What the gate's `verify` gave.
        signer: The auditor's key.
        now: By the signer's clock.

    Raises:
        UsageError: The ledger is empty.
    """
    if not found["rows"]:
        raise UsageError("The ledger is empty.", why="There is nothing to hold fast.", fix="quantgov audit log")
    content = LedgerCheckpoint(
        ledger=found["first_hash"],
        seq=found["rows"],
        row_hash=found["last_hash"],
        signed_at=now or datetime.now(UTC).replace(microsecond=0),
    )
    payload = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"ledger row {content.seq}", "digest": {"sha256": content.row_hash}}],
        "predicateType": TYPE,
        "predicate": content.model_dump(mode="json"),
    }
    return sign_payload(canonical_json(payload), signer)


def read(path: Path, keys: TrustedKeys, more: Sequence[PublicKey] = ()) -> LedgerCheckpoint:
    """Read a checkpoint that somebody trusted has signed.

    Args:
        path: File of the envelope.
        keys: Trusted keys; those with the role `auditor` count.
        more: Keys that count whatever role they have.

    Raises:
        EvidenceError: It is malformed, or no trusted key has signed it.
        UsageError: There is no such file.
    """
    if not path.is_file():
        raise no_such_file(path, "Nothing was compared.")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _malformed(path, "it is too large")
    envelope = read_envelope(data, where=path.name)
    content = _content(path, envelope)
    if any(envelope.fits(key) for key in more):
        return content
    signature = examine(envelope, keys, content.signed_at, datetime.now(UTC))
    if signature.is_valid and ROLE in signature.roles:
        return content
    problem = f"whose key is {signature.standing}" if not signature.is_valid else f"whose key has not the role {ROLE}"
    raise EvidenceError(
        f"The checkpoint {path.name} is signed by {signature.words()}, {problem} here.",
        why="A checkpoint shows something only if whoever rewrote the ledger could not have signed it.",
        fix="quantgov audit verify --checkpoint FILE --public-key AUDITOR.pub.pem",
    )


def compare(found: dict[str, Any], points: Sequence[tuple[str, LedgerCheckpoint]]) -> list[Compared]:
    """Compare checkpoints with a ledger.

    Args:
        found: What `verify` gave, with the hashes of the checkpoints' rows.
        points: File name and checkpoint.
    """
    made: list[Compared] = []
    agreed = 0
    for file, point in sorted(points, key=lambda one: one[1].seq):
        if point.ledger != found["first_hash"]:
            made.append(
                Compared(
                    file, point.seq, False, "row 1 is another one: rewritten from its start, or not this ledger", 1
                )
            )
        elif point.seq not in found["hashes"]:
            gone = found["rows"] + 1
            made.append(Compared(file, point.seq, False, f"rows {gone} to {point.seq} are gone", gone))
        elif found["hashes"][point.seq] != point.row_hash:
            where = f"row {point.seq} is another one: rewritten somewhere from row {agreed + 1} on"
            made.append(Compared(file, point.seq, False, where, point.seq))
        else:
            agreed = point.seq
            made.append(Compared(file, point.seq, True))
    return made


def _content(path: Path, envelope: Envelope) -> LedgerCheckpoint:
    value = strict_json(envelope.payload, where=path.name)
    try:
        content = LedgerCheckpoint.model_validate_json(json.dumps(value["predicate"]))
        kind, subject = value["predicateType"], value["subject"][0]["digest"]["sha256"]
    except (KeyError, IndexError, TypeError, ValidationError) as error:
        raise _malformed(path, f"{type(error).__name__} in its content") from error
    if kind != TYPE or subject != content.row_hash:
        raise _malformed(path, "it is a statement of another kind, or about another row than it says")
    return content


def _malformed(path: Path, problem: str) -> EvidenceError:
    return EvidenceError(
        f"{path.name} is no checkpoint of a ledger: {problem}.",
        why="Nothing was compared.",
        fix="quantgov audit checkpoint --key NAME.key.pem -o FILE",
    )

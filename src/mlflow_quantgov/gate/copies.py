"""Copies of statements beside a model: for people everywhere, and where nothing is gated all the evidence that there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mlflow_quantgov.evidence.signing import (
    MAX_ENVELOPE_BYTES,
    Attached,
    Signature,
    TrustedKeys,
    examine,
    refuse_bad,
)
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER
from mlflow_quantgov.policy.facts import Evidence


def copies_below(root: Path) -> Iterable[tuple[str, bytes]]:
    """Name and bytes of the copies beside a model."""
    for path in sorted((root / EVIDENCE_FOLDER).glob("*.json")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_ENVELOPE_BYTES:
            yield path.name, path.read_bytes()


def unkept(attached: Attached, keys: TrustedKeys, now: datetime, where: str) -> Evidence:
    """A copy as evidence, where nothing is kept: whoever signed it is known, when it was received is not.

    Raises:
        EvidenceError: The signature names a trusted key that did not make it, or the statement is malformed.
    """
    statement = attached.statement
    signed: tuple[Signature, ...] = ()
    if attached.envelope is not None:
        found = examine(attached.envelope, keys, now, now)
        refuse_bad(found, keys, where)
        signed = (replace(found, received_at=None),)
    return Evidence(statement, statement.content(), statement.digest, None, None, signed)


def merged(found: Iterable[Evidence]) -> list[Evidence]:
    """Each statement once, with the signatures of all its copies."""
    once: dict[str, Evidence] = {}
    for one in found:
        before = once.setdefault(one.digest, one)
        if before is not one:
            once[one.digest] = replace(before, signatures=before.signatures + one.signatures)
    return list(once.values())

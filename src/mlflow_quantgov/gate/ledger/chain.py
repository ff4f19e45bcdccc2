"""The hash chain of the ledger, row by row: in a database or in an exported file, a million rows in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_quantgov.evidence.statement import canonical_json

GENESIS = "0" * 64
CHAINED = ("seq", "decision_id", "created_at", "kind", "model", "version", "destination", "decision", "actor",
           "actor_source", "policy_digest", "body", "previous_hash")  # fmt: skip
WHOLE = (*CHAINED, "workspace", "row_hash")
"""Columns of a whole row, as it is exported."""


@dataclass(frozen=True)
class Wrong:
    """A pointer that stands where the ledger does not say that it stands."""

    model: str
    destination: str
    version: str
    problem: str
    workspace: str = "default"


@dataclass(frozen=True)
class Verification:
    """Whether the chain is unbroken, and what it shows."""

    ok: bool
    rows: int
    first_bad: int | None
    first_hash: str = ""
    """Hash of the first row: no other ledger has the same."""
    last_hash: str = ""
    hashes: dict[int, str] = field(default_factory=dict)
    """Of the rows that were asked for and are there."""
    pointers: tuple[Wrong, ...] = ()
    """Where the registry does not agree with the ledger."""


def hash_of(row: Mapping[str, Any]) -> str:
    """Hash of a row, over everything in it and the hash of the row before."""
    chained = {name: row[name] for name in CHAINED}
    if row.get("workspace") is not None:  # rows of before knew no workspaces, and keep their hash
        chained["workspace"] = row["workspace"]
    return hashlib.sha256(canonical_json(chained)).hexdigest()


def walk(rows: Iterable[Mapping[str, Any]], wanted: Collection[int] = ()) -> Verification:
    """Recompute the chain from its first row.

    Args:
        rows: Whole rows in their order.
        wanted: Numbers of rows whose hashes are asked for.
    """
    previous, count, first, bad = GENESIS, 0, "", None
    hashes = {}
    for row in rows:
        count += 1
        if bad is None and (row["seq"] != count or row["previous_hash"] != previous or row["row_hash"] != hash_of(row)):
            bad = row["seq"]
        previous = row["row_hash"]
        first = first or previous
        if row["seq"] in wanted:
            hashes[row["seq"]] = previous
    return Verification(bad is None, count, bad, first, previous if count else "", hashes)

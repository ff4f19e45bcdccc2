"""Which files the gate decided about, for a version as it is now: numbers are used again, decisions are not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow_quantgov.errors import EvidenceError, pasted
from mlflow_quantgov.gate.clients.interface import Gate

MOST_ROWS = 10_000
"""As many as a server gives at once."""
_APPROVING = {"allowed", "observed"}


@dataclass(frozen=True)
class Decided:
    """The newest decision that let a version through, and of which files it was."""

    decision_id: str
    destination: str
    manifest: str
    """Digest of the model's files, as they were judged."""


def newest_decided(gate: Gate, name: str, version: str, created: int) -> Decided | None:
    """The newest decision that let a version through somewhere; None where there is none, or it read no manifest.

    Args:
        gate: Whose ledger is asked.
        name: Registered model.
        version: Its version.
        created: When the version was created, in milliseconds; what was decided before is about another one.

    Raises:
        EvidenceError: The ledger holds so many rows of this model that an approval may lie behind them.
    """
    since = datetime.fromtimestamp(created / 1000, UTC)
    rows = gate.ledger(name, MOST_ROWS)
    for row in rows:
        about = row.get("kind") == "promotion" and str(row.get("version")) == version
        if not about or row.get("decision") not in _APPROVING or _moment(str(row["created_at"])) < since:
            continue
        decision = gate.decision(str(row["decision_id"]))
        # What was judged before it existed, or by a gate of before, is told apart by its time alone.
        judged = (decision.judged.get("created") or created) == created if decision else False
        if decision is not None and judged and decision.manifest:
            return Decided(str(row["decision_id"]), str(row.get("destination")), decision.manifest)
    if len(rows) >= MOST_ROWS and _moment(str(rows[-1]["created_at"])) > since:
        raise EvidenceError(
            f"The newest {MOST_ROWS:,} rows of the ledger about {name} hold no approval of version {version}.",
            why="An older one may say which files were approved, and somebody may have asked so often to hide it.",
            fix=f"quantgov audit log --model {pasted(name)}",
        )
    return None


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)

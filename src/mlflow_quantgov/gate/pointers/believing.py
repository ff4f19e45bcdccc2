"""How a version came to stand at a protected alias or stage, by the ledger: bound to that very version, and to its source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from sqlalchemy.orm import Session

from mlflow_quantgov.gate.pointers.listing import Stood
from mlflow_quantgov.gate.pointers.moves import Move, last_move
from mlflow_quantgov.policy.decision import manifest_of
from mlflow_quantgov.policy.schema import Policy

How = Literal["approved", "inherited", "observed", "renamed", "unknown", "re-created", "re-pointed"]
_UNJUDGED = frozenset({"inherited", "observed", "renamed"})
"""Nobody has judged it, or not by this name: a policy may grant a time to do so."""
_HOW: dict[str, How] = {"allowed": "approved", "inherited": "inherited", "observed": "observed"}
_WORDS: dict[str, str] = {
    "approved": "a decision of the ledger allows it",
    "inherited": "it stood there before the gate, and nobody has judged it",
    "observed": "it was let through while the gate only observed, and would have been refused",
    "renamed": "it was let through under another name, and its model was renamed while the gate only observed",
    "unknown": "the ledger holds no approval for it: it may have been put there around the gate",
    "re-created": "the version that was judged was deleted, and this is another one with its number",
    "re-pointed": "its source is not the one that was judged: it was changed in the database",
}


@dataclass(frozen=True)
class Standing:
    """What the ledger says of a version at a destination."""

    model: str
    version: str
    destination: str
    how: How
    believed: bool
    """Whether it is loaded through that destination."""
    words: str
    since: str | None = None
    by: str | None = None
    """Who moved it there."""
    decision_id: str | None = None
    manifest: str | None = None
    """Of the files that were judged."""
    policy: str | None = None
    """Digest of the policy by which it was judged."""
    grace_until: str | None = None
    days_left: int | None = None
    """Of the grace, today included; below 1 it is over. None where there is none."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def standing(
    session: Session, policy: Policy, stood: Stood, *, today: date | None = None
) -> tuple[Standing, dict[str, Any]]:
    """What the ledger says of a pointer, and what the decision behind it was bound to.

    Args:
        session: Of the gate's database.
        policy: In force: it may grant a date of grace.
        stood: The pointer.
        today: By the gate's clock (UTC).
    """
    move = last_move(session, stood)
    if move is not None and not move.puts_it_there:
        move = None
    how: How = "unknown" if move is None else move.moved_another or _how(move)
    grace = policy.inherited.grace_until if policy.inherited is not None else None
    left = (grace - (today or datetime.now(UTC).date())).days + 1 if grace and how in _UNJUDGED else None
    believed = how == "approved" or (left >= 1 if left is not None else how == "inherited")
    row = move.row if move else None
    found = Standing(
        stood.model, stood.version, stood.destination, how, believed, _words(how, grace, left),
        since=row.created_at if row else None,
        by=row.actor if row else None,
        decision_id=row.decision_id if row else None,
        manifest=manifest_of(move.body) if move else None,
        policy=row.policy_digest if row else None,
        grace_until=grace.isoformat() if grace and left is not None else None,
        days_left=left,
    )  # fmt: skip
    return found, move.bond if move and how == "approved" else {}


def _how(move: Move) -> How:
    # With a protected pointer in it, a model is renamed only where the gate observes.
    how = _HOW.get(str(move.row.decision), "unknown")
    return "renamed" if move.renamed and how != "unknown" else how


def _words(how: How, grace: date | None, left: int | None) -> str:
    said = _WORDS[how]
    if left is None:
        return said
    return f"{said}; grace until {grace}, {left} days left" if left >= 1 else f"{said}; its grace ended on {grace}"

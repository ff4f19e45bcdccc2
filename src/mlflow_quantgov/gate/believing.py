"""How a version came to stand at a protected alias or stage, by the ledger: bound to that very version, and to its source."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from sqlalchemy import desc, select
from sqlalchemy.orm import Session

from mlflow_quantgov.gate.tables import LedgerRow
from mlflow_quantgov.policy.matching import fold
from mlflow_quantgov.policy.schema import Policy

How = Literal["approved", "inherited", "observed", "unknown", "re-created", "re-pointed"]
_MOVES = ("promotion", "inherited", "alias-removed", "stage-left")
_HOW: dict[str, How] = {"allowed": "approved", "inherited": "inherited", "observed": "observed"}
_WORDS: dict[str, str] = {
    "approved": "a decision of the ledger allows it",
    "inherited": "it stood there before the gate, and nobody has judged it",
    "observed": "it was let through while the gate only observed, and would have been refused",
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
    session: Session, policy: Policy, stood: Any, *, today: date | None = None
) -> tuple[Standing, dict[str, Any]]:
    """What the ledger says of a pointer, and what the decision behind it was bound to.

    Args:
        session: Of the gate's database.
        policy: In force: it may grant a date of grace.
        stood: The pointer: `model`, `version`, `destination`, `created`, `source`, `location`.
        today: By the gate's clock (UTC).
    """
    row = _last_move(session, stood)
    how: How = "unknown" if row is None else _HOW.get(str(row.decision), "unknown")
    body = json.loads(row.body) if row is not None else {}
    bound = body.get("judged") or body.get("bound") or {}
    if row is not None and how != "unknown":
        how = _bound_elsewhere(stood, bound, row.created_at) or how
    grace = policy.inherited.grace_until if policy.inherited is not None else None
    left = (
        (grace - (today or datetime.now(UTC).date())).days + 1 if grace and how in {"inherited", "observed"} else None
    )
    believed = how == "approved" or (left >= 1 if left is not None else how == "inherited")
    found = Standing(
        stood.model, stood.version, stood.destination, how, believed, _words(how, grace, left),
        since=row.created_at if row else None,
        by=row.actor if row else None,
        decision_id=row.decision_id if row else None,
        manifest=bound.get("manifest") or (_manifest(row) if row else None),
        policy=row.policy_digest if row else None,
        grace_until=grace.isoformat() if grace and left is not None else None,
        days_left=left,
    )  # fmt: skip
    return found, bound if how == "approved" else {}


def _last_move(session: Session, stood: Any) -> LedgerRow | None:
    """The row by which the version came to where it stands; None where the newest move says otherwise."""
    columns = (LedgerRow.seq, LedgerRow.kind, LedgerRow.version, LedgerRow.destination)
    query = select(*columns).where(LedgerRow.model == stood.model, LedgerRow.kind.in_(_MOVES))
    for seq, kind, version, destination in session.execute(query.order_by(desc(LedgerRow.seq))):
        if destination is None or fold(destination) != fold(stood.destination):
            continue
        # Many versions may hold a stage; one holds an alias, and one that is spelled otherwise is another alias to MLflow.
        if version != stood.version and (not stood.destination.startswith("@") or destination != stood.destination):
            continue
        row = session.get(LedgerRow, seq)
        if row is None or json.loads(row.body).get("creation"):
            continue  # to create a version in a protected model is a promotion too, and moves nothing
        return row if version == stood.version and kind in {"promotion", "inherited"} else None
    return None


def _bound_elsewhere(stood: Any, bound: dict[str, Any], decided_at: str) -> How | None:
    """Whether what was judged is another version, or lay elsewhere."""
    if "created" not in bound:
        # Rows of before: a version that is younger than the decision is not the one that was judged.
        return "re-created" if stood.created > datetime.fromisoformat(decided_at).timestamp() * 1000 else None
    if bound["created"] != stood.created:
        return "re-created"
    moved = bound.get("source") != stood.source or bound.get("location") not in {None, stood.location}
    return "re-pointed" if moved else None


def _manifest(row: LedgerRow) -> str | None:
    """As the identity check of a decision of before read it."""
    checks = json.loads(row.body).get("checks", ())
    return next((one["numbers"].get("manifest") for one in checks if one["check"] == "identity"), None)


def _words(how: How, grace: date | None, left: int | None) -> str:
    said = _WORDS[how]
    if left is None:
        return said
    return f"{said}; grace until {grace}, {left} days left" if left >= 1 else f"{said}; its grace ended on {grace}"

"""Does the registry agree with the ledger: is every protected pointer where the last row about it has put it?"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session

from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database.tables import PolicyRow
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.gate.ledger.chain import Wrong
from mlflow_quantgov.gate.pointers.listing import Stood, all_pointers
from mlflow_quantgov.gate.pointers.moves import bound, last_move
from mlflow_quantgov.policy.loader import parse_policy
from mlflow_quantgov.policy.matching import destination_kind
from mlflow_quantgov.policy.schema import Policy


def problem(session: Session, policy: Policy, held: Stood) -> str | None:
    """What is wrong with a pointer; None where the ledger put it there, or the policy leaves it open."""
    if held.is_archived or destination_kind(policy, held.model, held.destination) == "open":
        return None
    if held.created is None:
        return "the version that it points to does not exist"
    move = last_move(session, held)
    if move is None:
        return "no row of the ledger has put it there"
    if move.ended_by is not None:
        return f"row {move.ended_by} took it away"
    if not move.puts_it_there:
        put = move.row.kind in {"promotion", "inherited"}
        return f"row {move.row.seq} {f'put it on version {move.row.version}' if put else 'took it away'}"
    if move.moved_another is not None:
        return f"it is another version than row {move.row.seq} let through: its source or creation time differ"
    return None


def inherited(session: Session, policy: Policy, actor: str, actor_source: str) -> Iterator[Entry]:
    """Rows for pointers that no decision put there, since nobody guarded them.

    Those from before the gate, and those that the policy in force until now left open.
    A pointer that was protected already, and stands where no row has put it, is not among them: `audit verify` finds it.
    """
    before = None
    if not ledger.is_empty(session):
        digest = ledger.newest_digest(session, "policy")
        kept = session.get(PolicyRow, digest) if digest and digest != policy.digest else None
        if kept is None:
            return
        before = parse_policy(kept.text, source="the policy before")
    for held in list(all_pointers(session)):
        was = "open" if before is None else destination_kind(before, held.model, held.destination)
        if was == "open" and held.created is not None and problem(session, policy, held) is not None:
            yield Entry("inherited", actor, actor_source, held.model, held.version, held.destination, "inherited",
                        policy.digest, {"bound": bound(held)}, held.workspace)  # fmt: skip


def wrong(session: Session, policy: Policy, held: Stood) -> Wrong | None:
    """A pointer with its problem; None where there is none."""
    found = problem(session, policy, held)
    return None if found is None else Wrong(held.model, held.destination, held.version, found, held.workspace)

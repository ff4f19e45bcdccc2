"""What the gate tells the triggers: which policy they enforce, and which change it allows in this very transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from mlflow_quantgov.gate.database.tables import GrantRow, GuardRow, LedgerRow, RuleRow
from mlflow_quantgov.gate.database.triggers.patterns import is_decidable, mode, rule_rows
from mlflow_quantgov.gate.database.workspaces import DEFAULT
from mlflow_quantgov.policy.schema import Policy

ANY = "*"
_EVERY_VERSION = -1


def tell(session: Session, policy: Policy, row: LedgerRow) -> None:
    """Have the triggers enforce a policy from this transaction's end on.

    Args:
        session: Of the transaction in which the row was appended; it must be the newest.
        policy: What to enforce.
        row: Of kind `policy`; the rules may be changed until the guard names it.
    """
    session.execute(delete(RuleRow))
    if found := rule_rows(policy):
        session.execute(insert(RuleRow), found)
    values = {"mode": mode(policy), "policy_digest": policy.digest, "seq": row.seq}
    if session.scalar(select(GuardRow.id)) is None:
        session.execute(insert(GuardRow), {"id": 1} | values)
    else:
        session.execute(update(GuardRow).values(values))


def knows(session: Session, policy: Policy) -> bool:
    """Whether the triggers enforce this policy, every rule of it, and nothing else."""
    guards = session.execute(select(GuardRow.id, GuardRow.mode, GuardRow.policy_digest)).all()
    there = [dict(row) for row in session.execute(select(RuleRow.__table__).order_by(RuleRow.id)).mappings()]
    return [tuple(row) for row in guards] == [(1, mode(policy), policy.digest)] and there == rule_rows(policy)


def is_undecidable(name: str, destination: str) -> bool:
    """Whether the triggers cannot tell that a destination is open, so that even an open one needs a grant."""
    return not (is_decidable(name) and is_decidable(destination))


@contextmanager
def granted(session: Session, row: LedgerRow) -> Iterator[None]:
    """Let what a ledger row names be changed, until this ends.

    Args:
        session: Of the transaction in which the row was appended; it must be the newest.
        row: A promotion, a removal, a deletion, a rename, a stage that was left, or a move to an open destination.
    """
    for deed, name, destination, version in _allowed(row):
        session.execute(
            insert(GrantRow),
            {
                "seq": row.seq,
                "deed": deed,
                "workspace": row.workspace or DEFAULT,
                "name": name,
                "destination": destination,
                "version": version,
            },
        )
    yield
    # On SQLite nothing else ends a grant; where the change fails, everything is rolled back.
    session.execute(delete(GrantRow).where(GrantRow.seq == row.seq))


def _allowed(row: LedgerRow) -> Iterator[tuple[str, str, str, int]]:
    name, destination = str(row.model), str(row.destination)
    where = destination if destination.startswith("@") else destination.lower()
    version = int(row.version) if row.version is not None and row.version.isdecimal() else _EVERY_VERSION
    if row.kind == "rename":
        yield "rename", name, ANY, _EVERY_VERSION
        yield "rename", destination, ANY, _EVERY_VERSION
    elif row.kind == "deletion":
        yield "removal", name, ANY, version
    elif row.kind in {"stage-left", "alias-removed"}:
        yield "removal", name, where, version
    else:
        yield "set", name, where, version

"""By which row of the ledger a version came to an alias or a stage, and whether it is still the one that was moved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from sqlalchemy import desc, func, select
from sqlalchemy.orm import Session

from mlflow_quantgov.gate.database.tables import LedgerRow
from mlflow_quantgov.gate.database.workspaces import DEFAULT
from mlflow_quantgov.gate.pointers.listing import Stood
from mlflow_quantgov.policy.names import fold

_PUT = frozenset({"promotion", "inherited"})
_MOVES = _PUT | {"alias-removed", "stage-left"}
_ENDS = frozenset({"deletion", "rename"})
_COLUMNS = (LedgerRow.seq, LedgerRow.kind, LedgerRow.model, LedgerRow.version, LedgerRow.destination)


@dataclass(frozen=True)
class Move:
    """The newest row about a pointer."""

    held: Stood
    row: LedgerRow
    ended_by: int | None
    """The row by which the version, or its model, was deleted or renamed away since; None where nothing did."""
    renamed: bool
    """Whether it was made under another name of the model."""

    @cached_property
    def body(self) -> dict[str, Any]:
        """What the row says."""
        found: dict[str, Any] = json.loads(self.row.body)
        return found

    @property
    def bond(self) -> dict[str, Any]:
        """What identifies the version that was moved: `created`, `source`, and of a decision all that it judged."""
        return self.body.get("judged") or self.body.get("bound") or {}

    @property
    def puts_it_there(self) -> bool:
        """Whether it moved this version (or one with its number) to where it stands."""
        return self.row.kind in _PUT and self.row.version == self.held.version

    @property
    def moved_another(self) -> Literal["re-created", "re-pointed"] | None:
        """Whether what was moved is another version than the one that stands there, or lay elsewhere."""
        held, bond = self.held, self.bond
        if self.ended_by is not None:
            return "re-created"
        if bond.get("created") is None:
            # Rows of before: a version that is younger than the decision is not the one that was judged.
            moved_at = datetime.fromisoformat(self.row.created_at).timestamp() * 1000
            return "re-created" if (held.created or 0) > moved_at else None
        if bond["created"] != held.created:
            return "re-created"
        elsewhere = bond.get("source") != held.source or bond.get("location") not in {None, held.location}
        return "re-pointed" if elsewhere else None


def bound(held: Stood) -> dict[str, Any]:
    """What a row says of a version that nobody judged: its number may be given away again, this may not."""
    return {"created": held.created, "source": held.source, "location": held.location}


def last_move(session: Session, held: Stood) -> Move | None:
    """The newest row about a pointer, under the name that the model had then; None where there is none.

    Args:
        session: Of the gate's database.
        held: The pointer.
    """
    ended_by: int | None = None
    name, below, renamed = held.model, None, False
    while True:
        former = None
        for row in _rows(session, held.workspace, name, below):
            if row.kind == "rename" and row.destination == name:
                former = row
                break
            if row.kind in _ENDS:
                if row.kind == "rename" or row.version in {None, held.version}:
                    ended_by = row.seq if ended_by is None else ended_by
            elif _is_about(row, held):
                whole = session.get_one(LedgerRow, row.seq)
                # To create a version in a protected model is a promotion too, and moves nothing.
                if not (row.kind == "promotion" and json.loads(whole.body).get("creation")):
                    return Move(held, whole, ended_by, renamed)
        if former is None:
            return None
        name, below, renamed = str(former.model), former.seq, True


def _rows(session: Session, workspace: str, name: str, below: int | None) -> Iterator[Any]:
    """Without their bodies, newest first: a decision's may be large."""
    query = (
        select(*_COLUMNS)
        .where(LedgerRow.kind.in_(_MOVES | _ENDS))
        .where((LedgerRow.model == name) | ((LedgerRow.kind == "rename") & (LedgerRow.destination == name)))
        .where(func.coalesce(LedgerRow.workspace, DEFAULT) == workspace)
        .order_by(desc(LedgerRow.seq))
    )
    if below is not None:
        query = query.where(LedgerRow.seq < below)
    with session.execute(query.execution_options(yield_per=200)) as found:
        yield from found


def _is_about(row: Any, held: Stood) -> bool:
    if row.destination is None:
        return False
    if held.is_alias:
        return bool(row.destination == held.destination)
    return fold(row.destination) == fold(held.destination) and row.version == held.version

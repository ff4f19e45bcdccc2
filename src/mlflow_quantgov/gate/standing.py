"""Does the registry agree with the ledger: is every protected pointer where the last row about it has put it?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModelAlias
from sqlalchemy import desc, func, literal, select, union_all
from sqlalchemy.orm import Session, aliased

from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.chain import Wrong
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.gate.sources import VersionRef
from mlflow_quantgov.gate.tables import LedgerRow, PolicyRow
from mlflow_quantgov.gate.workspaces import DEFAULT
from mlflow_quantgov.policy.loader import parse_policy
from mlflow_quantgov.policy.matching import destination_kind
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import Policy

_PUT = frozenset({"promotion", "inherited"})
_TAKEN = frozenset({"alias-removed", "stage-left", "deletion"})
_NO_POINTERS = ("None", "Archived", "Deleted_Internal")


@dataclass(frozen=True)
class Standing:
    """A pointer, and the version under it."""

    workspace: str
    model: str
    destination: str
    version: str
    created: int | None
    """None where there is no such version."""
    source: str | None


def bound(ref: VersionRef) -> dict[str, Any]:
    """What a row says of the version that it lets through: its number may be given away again, this may not."""
    return {"created": ref.creation_time, "source": ref.source}


def standing(session: Session) -> Iterator[Standing]:
    """Every alias, and every version at a stage, in all workspaces."""
    alias: Any = SqlRegisteredModelAlias
    version: Any = aliased(SqlModelVersion)
    same = (version.workspace == alias.workspace) & (version.name == alias.name) & (version.version == alias.version)
    aliases = select(
        alias.workspace, alias.name, literal("@") + alias.alias, alias.version, version.creation_time, version.source
    ).outerjoin(version, same)
    stages = select(
        version.workspace,
        version.name,
        version.current_stage,
        version.version,
        version.creation_time,
        version.source,
    ).where(version.current_stage.is_not(None), version.current_stage.not_in(_NO_POINTERS))
    for row in session.execute(union_all(aliases, stages).execution_options(yield_per=1000)):
        workspace, name, destination, number, created, source = row
        yield Standing(workspace or DEFAULT, name, destination, str(number), created, source)


def problem(session: Session, policy: Policy, held: Standing) -> str | None:
    """What is wrong with a pointer; None where the ledger put it there, or the policy leaves it open."""
    if destination_kind(policy, held.model, held.destination) == "open":
        return None
    if held.created is None:
        return "the version that it points to does not exist"
    row = _last(session, held, held.model)
    if row is None or row.kind not in _PUT:
        return "no row of the ledger has put it there" if row is None else f"row {row.seq} took it away"
    if row.version != held.version:
        return f"row {row.seq} put it on version {row.version}"
    said = json.loads(row.body).get("bound")
    if said and said != {"created": held.created, "source": held.source}:
        return f"it is another version than row {row.seq} let through: its source or creation time differ"
    return None


def inherited(session: Session, policy: Policy, actor: str, actor_source: str) -> Iterator[Entry]:
    """Rows for pointers that no decision put there, since nobody guarded them.

    Those from before the gate, and those that the policy in force until now left open.
    A pointer that was protected already, and stands where no row has put it, is not among them: `audit verify` finds it.
    """
    before = None
    if not ledger.is_empty(session):
        digest = ledger.newest_body(session, "policy").get("digest")
        kept = session.get(PolicyRow, digest) if digest and digest != policy.digest else None
        if kept is None:
            return
        before = parse_policy(kept.text, source="the policy before")
    for held in list(standing(session)):
        was = "open" if before is None else destination_kind(before, held.model, held.destination)
        if was == "open" and held.created is not None and problem(session, policy, held) is not None:
            body = {"bound": {"created": held.created, "source": held.source}}
            yield Entry("inherited", actor, actor_source, held.model, held.version, held.destination, "inherited",
                        policy.digest, body, held.workspace)  # fmt: skip


def wrong(session: Session, policy: Policy, held: Standing) -> Wrong | None:
    """A pointer with its problem; None where there is none."""
    found = problem(session, policy, held)
    return None if found is None else Wrong(held.model, held.destination, held.version, found, held.workspace)


def _last(session: Session, held: Standing, model: str, below: int | None = None) -> LedgerRow | None:
    """The newest row about a pointer, under the name that the model had then."""
    query = (
        select(LedgerRow)
        .where(LedgerRow.kind.in_({*_PUT, *_TAKEN, "rename"}))
        .where((LedgerRow.model == model) | ((LedgerRow.kind == "rename") & (LedgerRow.destination == model)))
        .where(func.coalesce(LedgerRow.workspace, DEFAULT) == held.workspace)
        .order_by(desc(LedgerRow.seq))
    )
    if below is not None:
        query = query.where(LedgerRow.seq < below)
    for row in session.execute(query.execution_options(yield_per=50)).scalars():
        if row.kind == "rename" and row.destination == model:
            return _last(session, held, str(row.model), row.seq)
        if row.kind == "rename" or (row.kind == "deletion" and row.version in {None, held.version}):
            return row
        if row.kind != "deletion" and _is_about(row, held):
            return row
    return None


def _is_about(row: LedgerRow, held: Standing) -> bool:
    if row.destination is None or fold(row.destination) != fold(held.destination):
        return False
    # An alias points to one version, while several may stand at one stage.
    if not held.destination.startswith("@") and row.version != held.version:
        return False
    return not (row.kind == "promotion" and json.loads(row.body).get("creation"))

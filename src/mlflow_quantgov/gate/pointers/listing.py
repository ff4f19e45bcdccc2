"""Aliases and stages at which versions stand, in one query: cheap enough to be asked inside a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow.entities.model_registry.model_version_stages import STAGE_ARCHIVED, STAGE_DELETED_INTERNAL, STAGE_NONE
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModelAlias
from sqlalchemy import String, cast, func, literal, select, union_all
from sqlalchemy.orm import Session, aliased

from mlflow_quantgov.gate.database.tables import LedgerRow
from mlflow_quantgov.gate.database.workspaces import DEFAULT
from mlflow_quantgov.policy.names import fold


@dataclass(frozen=True)
class Stood:
    """A version at an alias or a stage, as it is registered now."""

    workspace: str
    model: str
    version: str
    destination: str
    """`@alias` or a stage."""
    created: int | None
    """MLflow's milliseconds; None where there is no such version."""
    source: str | None
    location: str | None
    """Where its files lie, fixed when it was created."""

    @property
    def is_alias(self) -> bool:
        """An alias points to one version, and is another one where it is spelled otherwise; a stage may hold many."""
        return self.destination.startswith("@")

    @property
    def is_archived(self) -> bool:
        """MLflow moves versions there by itself, as another takes their stage."""
        return self.destination == STAGE_ARCHIVED

    def is_at(self, destination: str) -> bool:
        """Whether this is the pointer that somebody names, in whatever letters."""
        return fold(self.destination) == fold(destination)


def all_pointers(session: Session, workspace: str | None = None, model: str | None = None) -> Iterator[Stood]:
    """Every alias, also one that points to nothing, and every version at a stage.

    Args:
        session: Of the registry's database.
        workspace: Whose models; None for those of every workspace.
        model: Of one registered model alone.
    """
    alias: Any = SqlRegisteredModelAlias
    version: Any = aliased(SqlModelVersion)
    place = func.coalesce(func.nullif(version.storage_location, ""), version.source)
    of_version = (version.creation_time, version.source, place)
    same = (version.workspace == alias.workspace) & (version.name == alias.name) & (version.version == alias.version)
    there = version.current_stage.is_(None) | (version.current_stage != STAGE_DELETED_INTERNAL)
    named: Any = select(
        alias.workspace, alias.name, alias.version, literal("@") + alias.alias, *of_version
    ).outerjoin(version, same & there)  # fmt: skip
    staged: Any = select(
        version.workspace, version.name, version.version, version.current_stage, *of_version
    ).where(version.current_stage.is_not(None), version.current_stage.not_in([STAGE_NONE, STAGE_DELETED_INTERNAL]))  # fmt: skip
    for column, wanted in (("workspace", workspace), ("name", model)):
        if wanted is not None:
            named = named.where(getattr(alias, column) == wanted)
            staged = staged.where(getattr(version, column) == wanted)
    for row in session.execute(union_all(named, staged).execution_options(yield_per=1000)):
        where, name, number, destination, created, source, files = row
        yield Stood(where or DEFAULT, name, str(number), destination, created, source, files)


def let_through(session: Session, workspace: str) -> list[tuple[str, str, str]]:
    """Model, version and destination of every version that is there and was let through once: the triggers keep its row."""
    row: Any = LedgerRow
    later: Any = aliased(LedgerRow)
    version: Any = SqlModelVersion
    gone = select(later.seq).where(
        later.model == row.model,
        func.coalesce(later.workspace, DEFAULT) == workspace,
        later.seq > row.seq,
        later.kind.in_(("deletion", "rename")),
        later.version.is_(None) | (later.version == row.version),
    )
    found = (
        select(row.model, row.version, row.destination)
        .join(version, (version.name == row.model) & (cast(version.version, String) == row.version))
        .where(
            version.workspace == workspace,
            version.current_stage.is_distinct_from(STAGE_DELETED_INTERNAL),
            func.coalesce(row.workspace, DEFAULT) == workspace,
            row.kind.in_(("promotion", "inherited")),
            ~gone.exists(),
        )
        .order_by(row.seq)
    )
    return [(str(model), str(number), str(where)) for model, number, where in session.execute(found)]

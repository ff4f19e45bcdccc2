"""Aliases and stages at which versions stand, in two queries: cheap enough to be asked inside a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL, STAGE_NONE
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModelAlias
from sqlalchemy import select
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Stood:
    """A version at an alias or a stage, as it is registered now."""

    model: str
    version: str
    destination: str
    """`@alias` or a stage."""
    created: int
    """MLflow's milliseconds."""
    source: str
    location: str
    """Where its files lie, fixed when it was created."""


def all_pointers(session: Session, workspace: str | None) -> list[Stood]:
    """Every alias and stage of a registry at which a version stands.

    Args:
        session: Of the registry's database.
        workspace: Whose models; None for those of every workspace.
    """
    version: Any = SqlModelVersion
    columns = (version.name, version.version, version.creation_time, version.source, version.storage_location)
    staged: Any = select(*columns, version.current_stage).where(
        version.current_stage.not_in([STAGE_NONE, STAGE_DELETED_INTERNAL])
    )
    alias: Any = SqlRegisteredModelAlias
    named: Any = (
        select(*columns, alias.alias)
        .join(alias, (alias.name == version.name) & (alias.version == version.version))
        .where(alias.workspace == version.workspace, version.current_stage != STAGE_DELETED_INTERNAL)
    )
    if workspace is not None:
        staged, named = (query.where(version.workspace == workspace) for query in (staged, named))
    return [*_of(session.execute(named).all(), "@"), *_of(session.execute(staged).all(), "")]


def _of(rows: Iterable[Any], mark: str) -> list[Stood]:
    return [
        Stood(one[0], str(one[1]), f"{mark}{one[5]}", int(one[2]), one[3] or "", one[4] or one[3] or "") for one in rows
    ]

"""Which registered versions were made from a LoggedModel: MLflow deletes those past the registry's store."""

from __future__ import annotations

from typing import Any

from mlflow.entities import LoggedModel
from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from sqlalchemy import Engine, or_, select
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.gate.write_once.governed import Governed
from mlflow_quantgov.gate.write_once.places import place_of


def is_registered(engine: Engine, model: LoggedModel) -> bool:
    """Whether a registered version, in whatever workspace, has files of a LoggedModel.

    Args:
        engine: The registry's database.
        model: As the tracking store has it.
    """
    with Session(engine) as session:
        if session.execute(_made_from(model)).first() is not None:
            return True
    try:
        place = place_of(model.artifact_location)
    except (ArtifactError, ValueError):
        return False  # nothing can be read from there
    folders = Governed(engine).now()
    return bool(folders.within(place)) or folders.holds(place)


def named_version(session: Session, model: LoggedModel, workspace: str) -> tuple[str, str] | None:
    """Name and version of one that says it was made from a LoggedModel; None where none in this workspace says so."""
    row = session.execute(_made_from(model).where(SqlModelVersion.workspace == workspace)).first()
    return None if row is None else (row[0], str(row[1]))


def _made_from(model: LoggedModel) -> Any:
    """Versions that name the model, its folder, or its run and name: MLflow finds it by those, too."""
    version: Any = SqlModelVersion
    places = [f"models:/{model.model_id}", model.artifact_location]
    columns = (version.source, version.storage_location)  # a copy has a source of its own
    named = or_(*(column.in_(places) for column in columns))
    if model.source_run_id:
        of_run = f"runs:/{model.source_run_id}/{model.name}"
        named |= or_(*((column == of_run) | column.startswith(f"{of_run}/", autoescape=True) for column in columns))
    there = version.current_stage.is_(None) | (version.current_stage != STAGE_DELETED_INTERNAL)
    return select(version.name, version.version).where(there, named).order_by(version.name, version.version)

"""A LoggedModel from which versions were made: what names it, and what is read after it was deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_quantgov.gate.facts.sources import VersionRef, path_here
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.gate.write_once.logged_models import is_registered, named_version


@pytest.fixture
def database(new_sqlite_database: Callable[[], str]) -> str:
    return new_sqlite_database()


@pytest.fixture
def tracking(database: str, tmp_path: Path) -> SqlAlchemyStore:
    return SqlAlchemyStore(database, str(tmp_path / "artifacts"))


@pytest.mark.parametrize("location", [None, "models:/{id}"])
def test_the_files_of_a_deleted_one_are_found(tracking: SqlAlchemyStore, location: str | None) -> None:
    """A row of the registry need not say where they are."""
    model = tracking.create_logged_model("0", name="m")
    tracking.delete_logged_model(model.model_id)
    source = f"models:/{model.model_id}"
    there = location.format(id=model.model_id) if location else None
    assert str(path_here(VersionRef("chat", "1", source, 0, there), tracking.engine)) == model.artifact_location


@pytest.mark.parametrize("source", ["{place}", "{place}/model", "runs:/{run}/m", "runs:/{run}/m/model"])
def test_a_version_and_its_copies_keep_it(database: str, tracking: SqlAlchemyStore, source: str) -> None:
    run = "0123456789abcdef" * 2
    model = tracking.create_logged_model("0", name="m", source_run_id=run)
    other = tracking.create_logged_model("0", name="m-2", source_run_id=run)
    registry = open_store(f"quantgov:{database}")
    registry.create_registered_model("chat")
    named = source.format(place=model.artifact_location, run=run)
    registry.create_model_version("chat", named)
    registry.create_registered_model("copy")
    registry.create_model_version("copy", "models:/chat/1")
    assert not is_registered(registry.engine, other)
    registry.delete_model_version("chat", "1")
    assert is_registered(registry.engine, model), "the copy has its files"
    if named in {model.artifact_location, f"runs:/{run}/m"}:
        with registry._sessions() as session:
            assert named_version(session, model, "default") == ("copy", "1")
            assert named_version(session, model, "team-b") is None
    registry.delete_model_version("copy", "1")
    assert not is_registered(registry.engine, model)

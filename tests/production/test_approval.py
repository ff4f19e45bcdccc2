"""Loading through a protected pointer asks the ledger, through a gate that is opened in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy

import mlflow_quantgov as qg
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.production.approval import require_approval

POLICY = """
schema: quantgov/policy/v1
name: identity-alone
mode: MODE
gates: {identity: {checks: [identity]}}
rules: [{models: "*", destinations: {"@champion": identity, "@candidate": open}}]
"""


@pytest.fixture
def registry(
    new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skills: Path
) -> Iterator[Callable[[str], str]]:
    """Registers the skills model as version 1 of `chat` behind a gate of a mode; gives the database's URI."""
    database = new_sqlite_database()

    def open_gate(mode: str) -> str:
        (tmp_path / "policy.yaml").write_text(POLICY.replace("MODE", mode))
        monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
        mlflow.set_tracking_uri(database)
        mlflow.set_registry_uri(f"quantgov:{database}")
        qg.save_model(skills, tmp_path / "saved")
        client = mlflow.MlflowClient()
        client.create_registered_model("chat")
        client.create_model_version("chat", str(tmp_path / "saved"))
        return database

    yield open_gate
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def put_there_by_hand(database: str) -> None:
    with sqlalchemy.create_engine(database).begin() as connection:
        triggers.remove(connection)
        statement = "INSERT INTO registered_model_aliases (workspace, alias, version, name) VALUES ('default', 'champion', 1, 'chat')"
        connection.execute(sqlalchemy.text(statement))


def test_an_approved_version_gives_the_manifest_that_was_approved(registry: Any, skills: Path) -> None:
    registry("enforce")
    assert qg.promote("models:/chat/1", "@champion").allowed
    assert require_approval("models:/chat@champion") == build_manifest(skills).digest


def test_a_version_that_nobody_approved_is_refused(registry: Any) -> None:
    put_there_by_hand(registry("enforce"))
    with pytest.raises(UsageError, match="no approval"):
        require_approval("models:/chat@champion")


def test_where_the_gate_only_observes_nothing_is_refused(registry: Any) -> None:
    put_there_by_hand(registry("observe"))
    assert require_approval("models:/chat@champion") is None


def test_numbers_and_open_aliases_ask_nobody(registry: Any) -> None:
    registry("enforce")
    mlflow.MlflowClient().set_registered_model_alias("chat", "candidate", "1")
    assert require_approval("models:/chat/1") is None
    assert require_approval("models:/chat@candidate") is None

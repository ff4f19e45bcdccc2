"""`quantgov doctor`: what a deployment lacks is found, and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from sqlalchemy import create_engine, text

from mlflow_quantgov.gate import in_force
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.policy.loader import load_policy

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def examine(command: Run, new_sqlite_database: Callable[[], str]) -> Callable[[], tuple[int, dict[str, Any], str]]:
    """Examines a gated store; gives the exit code, outcome and detail of each thing, and the store's database."""
    database = new_sqlite_database()
    mlflow.set_tracking_uri(database)
    mlflow.set_registry_uri(f"quantgov:{database}")
    open_store(f"quantgov:{database}")

    def run() -> tuple[int, dict[str, Any], str]:
        code, said, _ = command("doctor", "--json")
        return code, {one["what"]: one for one in json.loads(said)["findings"]}, database

    return run


def test_a_gate_as_it_should_be(examine: Callable[[], tuple[int, dict[str, Any], str]]) -> None:
    code, found, _ = examine()
    assert code == 0, found
    assert {what for what, one in found.items() if one["outcome"] == "fail"} == set()
    for what in ("gate", "policy", "ledger", "triggers", "store", "database", "time of the ledger", "mlflow"):
        assert found[what]["outcome"] == "pass", found[what]


def test_nothing_gated(command: Run, new_sqlite_database: Callable[[], str]) -> None:
    mlflow.set_registry_uri(new_sqlite_database())
    code, said, _ = command("doctor")
    assert code == 1
    assert "is not gated" in " ".join(said.split()) and "Fix: quantgov server" in said


def test_triggers_that_are_not_wanted(
    examine: Callable[[], tuple[int, dict[str, Any], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, database = examine()
    with create_engine(database).begin() as connection:
        triggers.remove(connection)
    monkeypatch.setenv(triggers.OFF, "1")  # else they are put back when the store is opened
    code, found, _ = examine()
    assert (code, found["triggers"]["outcome"]) == (1, "fail")
    assert found["triggers"]["fix"].startswith("quantgov db triggers")


def test_files_that_are_in_force_no_longer(
    examine: Callable[[], tuple[int, dict[str, Any], str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a worker that its server starts again, after another server has put a newer policy in force."""
    _, found, _ = examine()
    assert found["in force"]["outcome"] == "pass"
    older = tmp_path / "older.yaml"
    older.write_text(load_policy().text.replace("name: default", "name: older"))
    monkeypatch.setenv("QUANTGOV_POLICY", str(older))
    monkeypatch.setenv(in_force.START, "first")
    monkeypatch.setenv(in_force.SEEN, "first:0")
    code, found, _ = examine()
    assert (code, found["in force"]["outcome"]) == (1, "fail")
    assert "it decides nothing: the policy file" in found["in force"]["detail"]
    assert "restart" in found["in force"]["fix"]


def test_a_ledger_from_the_future(examine: Callable[[], tuple[int, dict[str, Any], str]]) -> None:
    _, _, database = examine()
    with create_engine(database).begin() as connection:
        triggers.remove(connection)
        connection.execute(text("UPDATE quantgov_ledger SET created_at = '2999-01-01T00:00:00+00:00'"))
    code, found, _ = examine()
    assert code == 1
    assert found["time of the ledger"]["outcome"] == "fail"
    assert found["ledger"]["outcome"] == "fail"  # and the row was changed

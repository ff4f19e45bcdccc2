"""What a gate says of the deployment around it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from mlflow_quantgov.gate.clients.deployment import describe
from mlflow_quantgov.gate.registry_store import open_store


@pytest.mark.parametrize(
    ("file", "folder", "outcome"),
    [
        (0o644, 0o755, "pass"),
        (0o600, 0o1777, "pass"),  # sticky, as /tmp is: nobody replaces what is not theirs
        (0o664, 0o755, "inconclusive"),
        (0o666, 0o755, "fail"),
        (0o644, 0o777, "fail"),
    ],
)
def test_whoever_can_write_the_file_can_drop_the_triggers(file: int, folder: int, outcome: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "mlflow.db"
        path.touch()
        path.chmod(file)
        path.parent.chmod(folder)
        found = describe(create_engine(f"sqlite:///{path}")).reach
        path.parent.chmod(0o700)
    assert (found.outcome, bool(found.fix)) == (outcome, outcome != "pass")


def test_the_address_of_the_database_is_not_told(new_sqlite_database: Any) -> None:
    uri = new_sqlite_database()
    found = describe(create_engine(uri))
    assert found.database == f"sqlite {Path(uri).name}"
    assert (found.write_once, found.login) == (False, None)  # this process is no server


@pytest.mark.slow
def test_a_gate_whose_own_role_may_do_anything_is_told(new_postgres_database: Any) -> None:
    store: Any = open_store(f"quantgov:{new_postgres_database()}")
    found = describe(store.engine).reach
    assert (found.outcome, "may drop the triggers" in found.words) == ("inconclusive", True)
    store.engine.dispose()

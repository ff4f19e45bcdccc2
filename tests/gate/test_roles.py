"""PostgreSQL with an owner, a gate and everybody else, as docs/how-to/set-up-the-database.md has it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from mlflow_quantgov.errors import UnreachableError, UsageError
from mlflow_quantgov.gate.clients.deployment import describe
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.database.roles import grants
from mlflow_quantgov.gate.database.upgrade import upgrade
from mlflow_quantgov.gate.registry_store import open_store


@dataclass
class Database:
    """Addresses of one database for each role."""

    owner: str
    gate: str
    others: str
    roles: tuple[str, str, str]

    def run(self, uri: str, *statements: str) -> None:
        """In one transaction, kept."""
        engine = create_engine(uri)
        try:
            with engine.begin() as connection:
                for statement in statements:
                    connection.execute(text(statement))
        finally:
            engine.dispose()

    def refused(self, uri: str, *statements: str) -> None:
        """The database does not do it."""
        with pytest.raises(DBAPIError, match=r"quantgov refused|permission denied|must be owner|InsufficientPrivilege"):
            self.run(uri, *statements)


@pytest.fixture(scope="module")
def database(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """MLflow's and the gate's tables, made by their owner."""
    mark = uuid.uuid4().hex[:8]
    names = tuple(f"{role}_{mark}" for role in ("owner", "gate", "others"))
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"CREATE ROLE {name} LOGIN NOSUPERUSER"))
        connection.execute(text(f"CREATE DATABASE d{mark} OWNER {names[0]}"))
    url = sqlalchemy.engine.make_url(postgres).set(database=f"d{mark}")
    uris = [url.set(username=name).render_as_string(hide_password=False) for name in names]
    made = Database(*uris, names)
    TrackingStore(made.owner, str(tmp_path_factory.mktemp("artifacts")))
    upgrade(create_engine(made.owner), with_triggers=True)
    made.run(made.owner, *grants(names[1], names[2]))
    yield made
    for kept in (SqlAlchemyStore._engine_map, TrackingStore._engine_map):
        for uri in uris:
            if (engine := kept.pop(uri, None)) is not None:
                engine.dispose()
    admin.dispose()


@pytest.mark.slow
def test_each_role_may_do_its_own_work_and_no_more(database: Database, tmp_path: Path) -> None:
    gate: Any = open_store(f"quantgov:{database.gate}")
    assert gate.quantgov_triggers().ok
    assert describe(gate.engine).reach.outcome == "pass"
    plain = SqlAlchemyStore(database.others)
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    plain.create_registered_model("iris")
    for _ in range(2):
        plain.create_model_version("iris", str(tmp_path))
    gate.set_registered_model_alias("iris", "champion", "1")
    gate.transition_model_version_stage("iris", "1", "Production", False)
    plain.set_registered_model_alias("iris", "candidate", "2")
    plain.create_registered_model("another")
    plain.delete_registered_model("another")
    for change in (
        lambda: plain.set_registered_model_alias("iris", "champion", "2"),
        lambda: plain.delete_registered_model_alias("iris", "champion"),
        lambda: plain.transition_model_version_stage("iris", 2, "Production", True),
        lambda: plain.delete_registered_model("iris"),
    ):
        with pytest.raises(MlflowException, match="quantgov refused"):
            change()
    move = "UPDATE registered_model_aliases SET version = 2 WHERE alias = 'champion'"
    takeover = "CREATE OR REPLACE FUNCTION quantgov_is_open(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
    for uri in (database.gate, database.others):
        database.refused(uri, move)
        for statement in (
            "DROP TRIGGER quantgov_alias ON registered_model_aliases",
            "ALTER TABLE registered_model_aliases DISABLE TRIGGER ALL",
            "DROP FUNCTION quantgov_guard_alias CASCADE",
            takeover,
            "SET session_replication_role = replica",
            "TRUNCATE registered_model_aliases",
            "UPDATE quantgov_ledger SET actor = 'x'",
            "DELETE FROM quantgov_ledger",
            "TRUNCATE quantgov_ledger",
            "DELETE FROM quantgov_statements",
            "DELETE FROM alembic_version_quantgov",
            "ALTER TABLE quantgov_ledger OWNER TO CURRENT_USER",
            "CREATE TABLE public.quantgov_more (a integer)",
            "CREATE TRIGGER zz BEFORE UPDATE ON registered_model_aliases FOR EACH ROW "
            "EXECUTE FUNCTION quantgov_refuse_kept()",
        ):
            database.refused(uri, statement)
    for statement in (
        "SELECT * FROM quantgov_ledger",
        "INSERT INTO quantgov_grants (seq, workspace, name, destination, version) VALUES (1, 'default', 'iris', '*', -1)",
        "DELETE FROM quantgov_guard",
        "SELECT quantgov_is_live('default', 'iris', 1)",
    ):
        database.refused(database.others, statement)
    # A table of one's own under the name of ours does not come first.
    database.refused(
        database.others,
        "CREATE TEMP TABLE quantgov_guard (id integer, mode text)",
        "INSERT INTO quantgov_guard VALUES (1, 'observe')",
        move,
    )
    assert gate.quantgov_verify().ok
    assert dict(plain.get_registered_model("iris").aliases) == {"champion": 1, "candidate": 2}


@pytest.mark.slow
def test_a_gate_that_may_not_put_triggers_back_does_not_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Engine = create_engine(database.owner)
    database.run(database.owner, "DROP TRIGGER quantgov_alias ON registered_model_aliases")
    with pytest.raises(UnreachableError, match="quantgov_alias"):
        open_store(f"quantgov:{database.gate}")
    monkeypatch.setenv(triggers.OFF, "1")
    assert not open_store(f"quantgov:{database.gate}").quantgov_triggers().ok
    upgrade(engine, with_triggers=True)
    assert open_store(f"quantgov:{database.gate}").quantgov_triggers().ok
    engine.dispose()


def test_names_that_are_no_plain_names_are_refused() -> None:
    for name in ("a b", 'a"; DROP TABLE x', "", "1a", "ä"):
        with pytest.raises(UsageError):
            grants(name, "others")


@pytest.mark.slow
def test_doctor_names_who_else_reaches_what_the_triggers_rest_on(database: Database) -> None:
    _, gate, others = database.roles
    database.run(database.owner, f"GRANT INSERT ON quantgov_grants TO {others}")
    engine = create_engine(database.gate)
    owner = create_engine(database.owner)
    try:
        found = describe(engine).reach
        assert (found.outcome, others in found.words, gate in found.words) == ("fail", True, True)
        assert "quantgov db roles" in found.fix
        database.run(database.owner, f"REVOKE INSERT ON quantgov_grants FROM {others}")
        assert describe(engine).reach.outcome == "pass"
        # The owner sees a role that may write, as a gate on the owner's own role would.
        assert describe(owner).reach.outcome == "fail"
    finally:
        engine.dispose()
        owner.dispose()

"""A database that is cut off, locked, read-only or in a deadlock: waited for, or one clear line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event, text

from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database import session
from mlflow_quantgov.gate.registry_store import open_store


def one_clear_line(error: MlflowException) -> str:
    """The message of an outage, which names nothing of the database's own words."""
    said = str(error.message)
    assert error.get_http_status_code() == 503
    assert said.startswith("The registry's database ") and "Fix:" in said
    assert not any(sign in said for sign in ("\n", "[SQL", "sqlalche.me", "psycopg", "sqlite3"))
    return said


@pytest.fixture
def postgres_store(new_postgres_database: Callable[[], str], tmp_path: Path) -> Iterator[Any]:
    """A gated store on PostgreSQL with one version of `iris`."""
    database = new_postgres_database()
    store: Any = open_store(f"quantgov:{database}")
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    store.create_registered_model("iris")
    store.create_model_version("iris", str(tmp_path))
    yield store
    SqlAlchemyStore._engine_map.pop(database).dispose()


@pytest.mark.slow
def test_a_connection_that_is_cut_in_the_midst_is_made_again(postgres_store: Any) -> None:
    cut: list[int] = []

    @event.listens_for(postgres_store.engine, "before_cursor_execute")
    def end_own_backend(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO quantgov_ledger") and not cut:
            cut.append(cursor.connection.info.backend_pid)
            with sqlalchemy.create_engine(postgres_store.db_uri).connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": cut[0]})

    postgres_store.set_registered_model_alias("iris", "champion", "1")
    assert cut
    assert [row["kind"] for row in postgres_store.quantgov_ledger("iris")] == ["promotion"]
    assert postgres_store.get_model_version_by_alias("iris", "champion").version == 1


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_nobody_heard_of_is_not_made_again_and_said_so(postgres_store: Any, when: str) -> None:
    """The connection is cut at the commit: whether it was made cannot be known from here, and the ledger says it."""
    cut: list[int] = []
    commit = postgres_store.engine.dialect.do_commit

    def cut_off(connection: Any) -> None:
        """Cut it off before the server hears of the commit, or after it was made and before it is answered."""
        plain = connection.driver_connection
        rows = plain.execute("SELECT count(*) FROM quantgov_ledger WHERE kind = 'promotion'").fetchone()
        if cut or rows[0] == 0:
            return commit(connection)
        cut.append(plain.info.backend_pid)
        if when == "after":
            commit(connection)
        with sqlalchemy.create_engine(postgres_store.db_uri).connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": cut[0]})
        plain.execute("SELECT 1")  # what a client that waits for the answer is told
        raise AssertionError("the connection was not cut")

    postgres_store.engine.dialect.do_commit = cut_off
    try:
        with pytest.raises(MlflowException) as raised:
            postgres_store.set_registered_model_alias("iris", "champion", "1")
    finally:
        postgres_store.engine.dialect.do_commit = commit
    assert "it is not known whether the change was made" in one_clear_line(raised.value)
    assert "quantgov audit log" in one_clear_line(raised.value)
    made = when == "after"
    assert [row["kind"] for row in postgres_store.quantgov_ledger("iris")] == ["promotion"] * made
    assert list(postgres_store.get_registered_model("iris").aliases) == ["champion"] * made


@pytest.mark.slow
def test_a_deadlock_reaches_nobody(postgres_store: Any) -> None:
    """Its victim looks for a deadlock once, a second after it began to wait: it has to be the one that waits last."""
    other = sqlalchemy.create_engine(postgres_store.db_uri).connect()
    other.execute(text("SET deadlock_timeout = '30s'"))  # the promotion is to be the victim
    other.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ledger._LOCK})
    failed: list[BaseException] = []
    broken_off: list[str] = []

    def wait_for_the_promotion() -> None:
        try:
            other.execute(text("SELECT name FROM registered_models FOR UPDATE"))  # granted once that was broken off
        except BaseException as error:
            failed.append(error)
        finally:
            other.rollback()

    waiting = threading.Thread(target=wait_for_the_promotion)

    @event.listens_for(postgres_store.engine, "before_cursor_execute")
    def let_the_other_wait_first(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "pg_advisory_xact_lock" not in statement or waiting.ident is not None:
            return
        waiting.start()
        with sqlalchemy.create_engine(postgres_store.db_uri).connect() as watching:
            waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while watching.execute(waits).scalar_one() == 0:
                time.sleep(0.01)

    event.listen(postgres_store.engine, "handle_error", lambda seen: broken_off.append(str(seen.original_exception)))
    postgres_store.set_registered_model_alias("iris", "champion", "1")
    waiting.join()
    other.close()
    assert not failed and any("deadlock detected" in one for one in broken_off)
    assert [row["kind"] for row in postgres_store.quantgov_ledger("iris")] == ["promotion"]


@pytest.mark.slow
def test_a_lock_that_somebody_keeps_is_not_waited_for_without_end(
    postgres_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOCK_SECONDS", 1)
    with sqlalchemy.create_engine(postgres_store.db_uri).connect() as other:
        other.execute(text("LOCK TABLE quantgov_ledger IN EXCLUSIVE MODE"))
        with pytest.raises(MlflowException) as raised:
            postgres_store.set_registered_model_alias("iris", "champion", "1")
        assert "is locked by somebody else" in one_clear_line(raised.value)
    assert postgres_store.quantgov_ledger("iris") == []
    postgres_store.set_registered_model_alias("iris", "champion", "1")


@pytest.mark.slow
def test_what_a_trigger_refuses_is_no_outage(postgres_store: Any) -> None:
    with postgres_store.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'refused here' USING ERRCODE = 'insufficient_privilege'; END $$"
            )
        )
        connection.execute(
            text("CREATE TRIGGER t BEFORE INSERT ON registered_model_aliases FOR EACH ROW EXECUTE FUNCTION refuse()")
        )
    with pytest.raises(MlflowException, match="refused here"):
        postgres_store.set_registered_model_alias("iris", "champion", "1")
    assert postgres_store.quantgov_ledger("iris") == []


def test_a_database_that_is_read_only_says_so_and_serves_again(
    new_sqlite_database: Callable[[], str], tmp_path: Path
) -> None:
    store: Any = open_store(f"quantgov:{new_sqlite_database()}")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    store.create_registered_model("iris")
    store.create_model_version("iris", str(tmp_path / "files"))
    store.engine.dispose()

    def opened(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA query_only = ON")  # SQLite's own SQLITE_READONLY, also for root

    event.listen(store.engine, "connect", opened)
    with pytest.raises(MlflowException) as raised:
        store.set_registered_model_alias("iris", "champion", "1")
    assert "cannot be written to" in one_clear_line(raised.value)
    event.remove(store.engine, "connect", opened)
    store.set_registered_model_alias("iris", "champion", "1")  # on a new connection
    assert [row["kind"] for row in store.quantgov_ledger("iris")] == ["promotion"]


def test_evidence_for_files_that_cannot_be_read_is_refused_for_that(store: Any, quantized: str, tmp_path: Path) -> None:
    (tmp_path / "logged").rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="cannot be reached"):
        store.quantgov_take_in("chat", quantized, b"{}")
    with pytest.raises(ArtifactError, match="cannot be reached"):
        store.quantgov_draw("chat", quantized)

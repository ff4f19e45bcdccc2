"""Who goes around the gate, with an ungated store or a script on the same database, is refused by the database itself."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.database.granting import granted, tell
from mlflow_quantgov.gate.database.triggers.patterns import is_decidable, rule_rows, sql_patterns
from mlflow_quantgov.gate.ledger import Entry, append
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.matching import destination_kind, observes
from mlflow_quantgov.policy.names import fold

REFUSED = "quantgov refused"


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """A connection of somebody who has the database's address and nothing else."""
    made = sqlalchemy.create_engine(database)
    yield made
    made.dispose()


@pytest.fixture
def plain(store: Any, database: str) -> SqlAlchemyStore:
    """An ungated store on the gate's database."""
    return SqlAlchemyStore(database)


@pytest.fixture
def iris(sklearn_like: Callable[[str], str]) -> str:
    """A model with two versions, the first of which was let through at `@champion` and `Production`."""
    sklearn_like("iris")
    return sklearn_like("iris")


def runs(engine: Engine, *statements: str) -> bool:
    """Whether a database lets some statements through, in one transaction; they are undone."""
    with engine.connect() as connection:
        try:
            for statement in statements:
                connection.execute(text(statement))
            return True
        except DBAPIError as error:
            assert REFUSED in str(error), error
            return False
        finally:
            connection.rollback()


ALIAS = "INSERT INTO registered_model_aliases (workspace, name, alias, version) VALUES ('default', 'iris', '{}', {})"
VERSION = (
    "INSERT INTO model_versions (workspace, name, version, current_stage, source) "
    "VALUES ('default', 'iris', {}, '{}', 'evil')"
)
DOORS = {
    "a new alias": [ALIAS.format("production", 2)],
    "an alias that nobody named": [ALIAS.format("live", 2)],
    "another spelling": [ALIAS.format("CHAMPION", 2)],
    "full-width letters": [ALIAS.format("ｃｈａｍｐｉｏｎ", 2)],
    "an open alias renamed": [
        ALIAS.format("candidate", 2),
        "UPDATE registered_model_aliases SET alias = 'production' WHERE alias = 'candidate'",
    ],
    "another version": ["UPDATE registered_model_aliases SET version = 2 WHERE alias = 'champion'"],
    "removal": ["DELETE FROM registered_model_aliases WHERE alias = 'champion'"],
    "a stage": ["UPDATE model_versions SET current_stage = 'Staging' WHERE version = 2"],
    "a stage left": ["UPDATE model_versions SET current_stage = 'None' WHERE version = 1"],
    "a version born at a stage": [VERSION.format(3, "Production")],
    "another source": ["UPDATE model_versions SET source = 'evil' WHERE version = 1"],
    "another place": ["UPDATE model_versions SET storage_location = 'evil' WHERE version = 1"],
    "another number": [
        "UPDATE model_versions SET version = 9 WHERE version = 1",
        "UPDATE model_versions SET version = 1 WHERE version = 2",
    ],
    "soft deletion": ["UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE version = 1"],
    "deleted and made again": ["DELETE FROM model_versions WHERE version = 1", VERSION.format(1, "None")],
    "deletion of the model": ["DELETE FROM registered_model_aliases", "DELETE FROM model_versions"],
    "a forged grant": [
        "INSERT INTO quantgov_grants (seq, deed, workspace, name, destination, version) "
        "VALUES (1, 'set', 'default', 'iris', '*', -1)",
    ],
    "a grant of an old row": [
        "INSERT INTO quantgov_grants (seq, deed, workspace, name, destination, version) "
        "SELECT seq, 'set', 'default', 'iris', destination, 1 FROM quantgov_ledger WHERE destination = '@champion'",
    ],
    "the triggers told to observe": ["UPDATE quantgov_guard SET mode = 'observe'"],
    "a second word to the triggers": [
        "INSERT INTO quantgov_guard (id, mode, policy_digest, seq) VALUES (2, 'observe', 'x', 1)",
    ],
    "a place opened": ["UPDATE quantgov_rules SET is_open = (1 = 1)"],
    "a rule that observes": ["UPDATE quantgov_rules SET observes = (1 = 1)"],
    "a rule in front": [
        "INSERT INTO quantgov_rules (id, position, glob, regex, is_open, observes) "
        "VALUES (-1, -1, '*', '.*', (1 = 1), (1 = 1))",
    ],
    "no rules": ["DELETE FROM quantgov_rules"],
    "no word to the triggers": ["DELETE FROM quantgov_guard"],
    "an edited row": ["UPDATE quantgov_ledger SET actor = 'nobody' WHERE seq = 1"],
    "a removed row": ["DELETE FROM quantgov_ledger"],
    "a row out of the chain": [
        "INSERT INTO quantgov_ledger (seq, decision_id, created_at, kind, body, previous_hash, row_hash) "
        "VALUES (999999, 'x', '', 'policy', '{}', '', '')",
    ],
    "a removed policy": ["DELETE FROM quantgov_policies"],
}
OF_SQLITE = {
    "an alias replaced": [f"{ALIAS.format('champion', 2)}".replace("INSERT", "INSERT OR REPLACE")],
    "a version replaced": [f"{VERSION.format(1, 'None')}".replace("INSERT", "INSERT OR REPLACE")],
    "an alias replaced by its row": [
        "INSERT OR REPLACE INTO registered_model_aliases (rowid, workspace, name, alias, version) "
        "SELECT rowid, 'default', 'iris', 'candidate', 2 FROM registered_model_aliases WHERE alias = 'champion'",
    ],
    "a version replaced by its row": [
        "INSERT OR REPLACE INTO model_versions (rowid, workspace, name, version) "
        "SELECT rowid, 'default', 'iris', 7 FROM model_versions WHERE version = 1",
    ],
    "a row moved onto another": [
        "UPDATE OR REPLACE model_versions SET rowid = (SELECT rowid FROM model_versions WHERE version = 1) "
        "WHERE version = 2",
    ],
    "a ledger row replaced": [
        "INSERT OR REPLACE INTO quantgov_ledger (seq, decision_id, created_at, kind, body, previous_hash, row_hash) "
        "VALUES (1, 'x', '', 'policy', '{}', '', '')",
    ],
    "a policy replaced by its row": [
        "INSERT OR REPLACE INTO quantgov_policies (rowid, digest, name, text, first_seen) VALUES (1, '', '', '', '')",
    ],
    "an alias behind a NUL": [ALIAS.format("candidate", 2).replace("'candidate'", "'candidate' || char(0) || 'x'")],
    "an alias of bytes": [ALIAS.format("candidate", 2).replace("'candidate'", "CAST('champion' AS BLOB)")],
    "keys switched off": [
        "PRAGMA foreign_keys = OFF",
        "UPDATE registered_model_aliases SET name = 'other' WHERE alias = 'champion'",
    ],
}
OF_POSTGRESQL = {
    "a table emptied": ["TRUNCATE registered_model_aliases"],
    "versions emptied": ["TRUNCATE model_versions CASCADE"],
    "the ledger emptied": ["TRUNCATE quantgov_ledger"],
    "statements emptied": ["TRUNCATE quantgov_statements"],
    "no rules at once": ["TRUNCATE quantgov_rules"],
    "an alias by upsert": [
        f"{ALIAS.format('champion', 2)} ON CONFLICT (workspace, name, alias) DO UPDATE SET version = 2",
    ],
}


def test_every_door_of_a_script_is_closed(store: Any, engine: Engine, iris: str) -> None:
    store.set_registered_model_alias("iris", "champion", "1")
    store.transition_model_version_stage("iris", "1", "Production", False)
    more = OF_SQLITE if engine.dialect.name == "sqlite" else OF_POSTGRESQL
    with engine.begin() as connection:
        triggers.remove(connection)
    assert [name for name, statements in (DOORS | more).items() if not runs(engine, *statements)] == []
    with engine.begin() as connection:
        triggers.install(connection)
    assert [name for name, statements in (DOORS | more).items() if runs(engine, *statements)] == []


def test_an_ungated_store_moves_open_pointers_and_no_others(store: Any, plain: SqlAlchemyStore, iris: str) -> None:
    store.set_registered_model_alias("iris", "champion", "1")
    plain.set_registered_model_alias("iris", "candidate", iris)
    plain.set_registered_model_alias("iris", "Challenger", iris)
    plain.transition_model_version_stage("iris", int(iris), "Archived", False)
    plain.create_registered_model("other")
    plain.rename_registered_model("other", "another")
    for change in (
        lambda: plain.set_registered_model_alias("iris", "champion", iris),
        lambda: plain.set_registered_model_alias("iris", "production", iris),
        lambda: plain.transition_model_version_stage("iris", int(iris), "Production", False),
        lambda: plain.delete_registered_model_alias("iris", "champion"),
        lambda: plain.delete_model_version("iris", "1"),
        lambda: plain.delete_registered_model("iris"),
        lambda: plain.rename_registered_model("iris", "free"),
    ):
        with pytest.raises(MlflowException, match=REFUSED):
            change()
    assert dict(plain.get_registered_model("iris").aliases) == {"champion": 1, "candidate": 2, "Challenger": 2}
    assert store.quantgov_verify().ok


def test_the_gate_itself_may_do_everything_that_it_did(store: Any, iris: str, tmp_path: Path) -> None:
    store.set_registered_model_alias("iris", "champion", "1")
    store.set_registered_model_alias("iris", "CANDIDATE", iris)
    store.transition_model_version_stage("iris", "1", "production", False)
    store.transition_model_version_stage("iris", iris, "Production", True)
    store.transition_model_version_stage("iris", iris, "None", False)
    store.delete_registered_model_alias("iris", "champion")
    store.delete_model_version("iris", " 2")
    store.rename_registered_model("iris", "iris2")
    store.create_registered_model("iris")
    store.create_model_version("iris", str(tmp_path))
    store.delete_registered_model("iris2")
    store.create_registered_model("iris2")
    store.create_model_version("iris2", str(tmp_path))
    # A name that no database can fold: what is open stays open through the gate.
    store.create_registered_model("модель")
    store.create_model_version("модель", str(tmp_path))
    store.set_registered_model_alias("модель", "candidate", "1")
    store.transition_model_version_stage("модель", "1", "Archived", False)
    assert store.quantgov_ledger("модель")[0]["kind"] == "open"
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM quantgov_grants")).scalar_one() == 0


def test_a_grant_allows_what_its_row_names_and_ends_with_its_transaction(
    store: Any, plain: SqlAlchemyStore, engine: Engine, iris: str
) -> None:
    def allowed(version: str) -> Entry:
        return Entry("promotion", "ada", "test", "iris", version, "@champion", "allowed")

    def point(session: Any, version: int) -> None:
        session.execute(text(ALIAS.format("champion", version)))

    with store._sessions.transaction() as session:
        with granted(session, append(session, allowed("1"))):
            point(session, 1)
        session.rollback()
    for row, version in ((allowed("1"), 2), (Entry("promotion", "ada", "t", "iris", "2", "@live", "allowed"), 2)):
        with (
            pytest.raises(MlflowException, match=REFUSED),
            store._sessions.transaction() as session,
            granted(session, append(session, row)),
        ):
            point(session, version)
    # A refusal is no ground for a grant, and a leftover grant of PostgreSQL counts in no other transaction.
    denied = Entry("denial", "ada", "test", "iris", "1", "@champion", "refused")
    with (
        pytest.raises(MlflowException, match=REFUSED),
        store._sessions.transaction() as session,
        granted(session, append(session, denied)),
    ):
        point(session, 1)
    if engine.dialect.name == "postgresql":
        with store._sessions.transaction() as session:
            granted(session, append(session, allowed("1"))).__enter__()
        assert not runs(engine, ALIAS.format("champion", 1))


def test_what_another_takes_the_stage_of_is_archived_whatever_the_policy_says_of_that(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.yaml").write_text(RULES_OF_BOTH_KINDS.replace("MODE", "enforce"))
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    store: Any = open_store(f"quantgov:{database}")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    store.create_registered_model("iris")
    for version in ("1", "2", "1"):
        if version not in {str(one.version) for one in store.search_model_versions("name = 'iris'", max_results=9)}:
            store.create_model_version("iris", str(tmp_path / "files"))
        store.transition_model_version_stage("iris", version, "Production", True)
        stages = {str(one.version): one.current_stage for one in store.search_model_versions(max_results=9)}
        assert stages.pop(version) == "Production" and set(stages.values()) <= {"Archived"}
    assert store.quantgov_verify().ok


LEFT_OVER = (
    "INSERT INTO quantgov_grants (seq, deed, workspace, name, destination, version) "
    "SELECT MAX(seq), '{}', 'default', '{}', '{}', {} FROM quantgov_ledger"
)


def test_a_row_of_the_ledger_serves_for_nothing_but_its_own_deed(store: Any, engine: Engine, iris: str) -> None:
    """Whoever may write grants asks for one by the newest row, after the gate has committed it."""

    def led_to_champion(deeds: dict[str, str], model: str = "iris") -> list[str]:
        point = ALIAS.replace("'iris'", f"'{model}'").format("champion", 2)
        return [
            f"{deed} of {destination}"
            for deed, destination in deeds.items()
            for version in (2, -1)
            if runs(engine, LEFT_OVER.format(deed, model, destination, version), point)
        ]

    every = dict.fromkeys(("set", "removal", "rename", "move"), "*") | {"set": "@champion"}
    store.set_registered_model_alias("iris", "production", "1")
    assert led_to_champion(every) == []
    store.delete_registered_model_alias("iris", "production")
    assert led_to_champion(every) == []
    store.set_registered_model_alias("iris", "champion", "1")
    store.delete_registered_model_alias("iris", "champion")  # the very alias, and any version
    assert led_to_champion(every | {"removal": "@champion"}) == []
    store.delete_model_version("iris", "1")
    assert led_to_champion(every) == []
    store.rename_registered_model("iris", "flower")
    assert led_to_champion(every, "flower") == []
    open_again = "UPDATE quantgov_guard SET mode = 'observe', seq = (SELECT MAX(seq) FROM quantgov_ledger)"
    assert not runs(engine, open_again)


def test_the_row_of_a_policy_serves_for_one_change(store: Any, database: str, tmp_path: Path, engine: Engine,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    policy = tmp_path / "other.yaml"
    policy.write_text(load_policy().text + "\n# another digest\n")
    monkeypatch.setenv("QUANTGOV_POLICY", str(policy))
    again: Any = open_store(f"quantgov:{database}")
    assert again.quantgov_ledger()[0]["kind"] == "policy" and again.quantgov_triggers().ok
    for name in ("the triggers told to observe", "a place opened", "a rule in front", "no rules"):
        assert not runs(engine, *DOORS[name]), name
    newest = "(SELECT MAX(seq) FROM quantgov_ledger)"
    assert not runs(engine, f"UPDATE quantgov_guard SET mode = 'observe', seq = {newest}")


@pytest.mark.slow
@pytest.mark.parametrize("move", ["alias", "stage"])
def test_a_row_that_is_changed_beside_a_promotion_is_waited_for(
    move: str, new_postgres_database: Callable[[], str], tmp_path: Path
) -> None:
    """A script holds a version's row with another place in it; the gate decides about what it then finds."""
    store, engine = promotable(new_postgres_database(), tmp_path)
    with engine.connect() as script, ThreadPoolExecutor(1) as pool:
        script.execute(text("UPDATE model_versions SET source = 'gone', storage_location = 'gone' WHERE version = 1"))
        asked = pool.submit(promote(store, move))
        # Within one transaction PostgreSQL lists the connections that there were when it was first asked.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watching:
            waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            while watching.execute(waits).scalar_one() == 0:
                time.sleep(0.01)
        script.commit()
        with pytest.raises(MlflowException, match=REFUSED):
            asked.result()
    assert store.quantgov_ledger("iris")[0]["decision"] == "refused"


@pytest.mark.slow
@pytest.mark.parametrize("move", ["alias", "stage"])
def test_a_transaction_that_began_before_a_promotion_does_not_change_its_version(
    move: str, new_postgres_database: Callable[[], str], tmp_path: Path
) -> None:
    """In REPEATABLE READ a trigger sees the ledger as it was, in which nothing protects that version."""
    store, engine = promotable(new_postgres_database(), tmp_path)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as script:
        script.execute(text("SELECT 1 FROM quantgov_ledger LIMIT 1"))
        promote(store, move)()
        with pytest.raises(DBAPIError, match="could not serialize"):
            script.execute(text("UPDATE model_versions SET storage_location = 'evil' WHERE version = 1"))
    assert store.quantgov_verify().ok


@pytest.mark.slow
def test_a_transaction_that_began_under_another_policy_sees_that_it_is_too_late(
    new_postgres_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = new_postgres_database()
    (tmp_path / "policy.yaml").write_text(load_policy().text.replace("mode: enforce", "mode: observe"))
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    _, engine = promotable(database, tmp_path)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as script:
        script.execute(text("SELECT 1 FROM quantgov_guard"))
        (tmp_path / "policy.yaml").write_text(load_policy().text)
        open_store(f"quantgov:{database}")
        with pytest.raises(DBAPIError, match="could not serialize"):
            script.execute(text(ALIAS.format("champion", 1)))


def promotable(database: str, folder: Path) -> tuple[Any, Engine]:
    """A gate on PostgreSQL with a version that may be promoted, and a script's way to the same database."""
    store: Any = open_store(f"quantgov:{database}")
    (folder / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    store.create_registered_model("iris")
    store.create_model_version("iris", str(folder))
    return store, sqlalchemy.create_engine(database)


def promote(store: Any, move: str) -> Callable[[], Any]:
    """The first version, to an alias or a stage."""
    if move == "alias":
        return lambda: store.set_registered_model_alias("iris", "champion", "1")
    return lambda: store.transition_model_version_stage("iris", "1", "Production", False)


def test_observing_refuses_nothing(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(load_policy().text.replace("mode: enforce", "mode: observe"))
    monkeypatch.setenv("QUANTGOV_POLICY", str(policy))
    store: Any = open_store(f"quantgov:{database}")
    assert store.quantgov_triggers().mode == "observe"
    plain = SqlAlchemyStore(database)
    plain.create_registered_model("iris")
    plain.create_model_version("iris", str(tmp_path))
    plain.set_registered_model_alias("iris", "champion", "1")
    policy.write_text(load_policy().text)
    assert open_store(f"quantgov:{database}").quantgov_triggers().mode == "enforce"
    with pytest.raises(MlflowException, match=REFUSED):
        plain.set_registered_model_alias("iris", "production", "1")


RULES_OF_BOTH_KINDS = """
schema: quantgov/policy/v1
name: both
mode: MODE
gates: {identity: {checks: [identity]}}
rules:
  - {models: "try-*", mode: observe, destinations: {"@champion": identity, Production: identity}}
  - {models: "iris", mode: enforce, destinations: {"@champion": identity, Production: identity}}
"""


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_a_model_whose_rule_only_observes_is_refused_nothing(
    mode: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    (tmp_path / "policy.yaml").write_text(RULES_OF_BOTH_KINDS.replace("MODE", mode))
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    store: Any = open_store(f"quantgov:{database}")
    assert (store.quantgov_triggers().ok, store.quantgov_triggers().mode) == (True, "enforce")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    for name in ("try-it", "iris", "nobody-named"):
        store.create_registered_model(name)
        for _ in range(2):
            store.create_model_version(name, str(tmp_path / "files"))
    for name in ("try-it", "iris"):
        store.set_registered_model_alias(name, "champion", "1")
        store.transition_model_version_stage(name, "1", "Production", False)

    def let_through(model: str) -> dict[str, bool]:
        doors = {name: [one.replace("'iris'", f"'{model}'") for one in DOORS[name]] for name in DOORS}
        of_model = {
            name: [f"{one} AND name = '{model}'" if "WHERE version" in one or "WHERE alias" in one else one
                   for one in statements]
            for name, statements in doors.items() if "iris" in str(DOORS[name]) or "WHERE" in str(DOORS[name])
        }  # fmt: skip
        of_pointers = {name: of_model[name] for name in OF_POINTERS}
        return {name: runs(engine, *statements) for name, statements in of_pointers.items()}

    assert set(let_through("try-it").values()) == {True}
    assert set(let_through("iris").values()) == {False}
    # What no rule names goes by the policy's own mode.
    unnamed = ALIAS.format("champion", 2).replace("'iris'", "'nobody-named'")
    assert runs(engine, unnamed) == (mode == "observe")
    # Nor may a pointer be carried from where nothing is refused to where something is.
    assert not runs(engine, "UPDATE registered_model_aliases SET name = 'iris', alias = 'production' "
                            "WHERE name = 'try-it' AND alias = 'champion'")  # fmt: skip
    # The gate itself moves, renames and deletes there, and enters it.
    store.rename_registered_model("try-it", "try-that")
    store.delete_model_version("try-that", "2")
    store.delete_registered_model("try-that")
    assert [row["decision"] for row in store.quantgov_ledger("try-that")] == ["observed", "recorded"]
    assert store.quantgov_verify().ok


OF_POINTERS = ("a new alias", "an alias that nobody named", "another spelling", "another version", "removal", "a stage",
               "a stage left", "a version born at a stage", "another source", "another place", "soft deletion")  # fmt: skip


def test_what_was_dropped_is_put_back_and_what_was_changed_too(store: Any, database: str, engine: Engine) -> None:
    assert store.quantgov_triggers().ok
    names = store.quantgov_triggers().expected
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("DROP TRIGGER quantgov_alias_set"))
            connection.execute(text("DROP TRIGGER quantgov_ledger_changed"))
            connection.execute(
                text("CREATE TRIGGER quantgov_ledger_changed BEFORE UPDATE ON quantgov_ledger BEGIN SELECT 1; END")
            )
        else:
            connection.execute(text("DROP TRIGGER quantgov_alias ON registered_model_aliases"))
            connection.execute(text("ALTER TABLE quantgov_ledger DISABLE TRIGGER quantgov_ledger_changed"))
            connection.execute(
                text(
                    "CREATE OR REPLACE FUNCTION quantgov_is_open(wanted_name text, wanted text) RETURNS boolean "
                    "LANGUAGE sql SECURITY DEFINER SET search_path TO public, pg_temp AS 'SELECT true'"
                )
            )
    found = store.quantgov_triggers()
    assert found.missing == (("quantgov_alias_set",) if engine.dialect.name == "sqlite" else ("quantgov_alias",))
    assert "quantgov_ledger_changed" in found.changed
    assert len(found.changed) == (1 if engine.dialect.name == "sqlite" else 2)
    again: Any = open_store(f"quantgov:{database}")
    assert again.quantgov_triggers().ok
    assert again.quantgov_triggers().expected == names


def test_rules_that_somebody_opened_are_closed_again(store: Any, database: str, engine: Engine, iris: str) -> None:
    with engine.begin() as connection:
        triggers.remove(connection)
        connection.execute(text("UPDATE quantgov_rules SET is_open = (1 = 1)"))
        triggers.install(connection)
    assert runs(engine, ALIAS.format("champion", 2))
    assert store.quantgov_triggers().changed == ("quantgov_rules",)
    again: Any = open_store(f"quantgov:{database}")
    assert again.quantgov_triggers().ok
    assert not runs(engine, ALIAS.format("champion", 2))
    told = again.quantgov_ledger()[0]
    assert told["kind"] == "policy"
    assert "told again" in again.quantgov_decision(told["decision_id"])["triggers"]


def test_without_triggers_the_gate_works_and_says_that_they_are_missing(
    database: str, monkeypatch: pytest.MonkeyPatch, sklearn_like: Callable[[str], str], engine: Engine
) -> None:
    monkeypatch.setenv(triggers.OFF, "1")
    with engine.begin() as connection:
        triggers.remove(connection)
    store: Any = open_store(f"quantgov:{database}")
    assert store.quantgov_triggers().missing == store.quantgov_triggers().expected
    store.set_registered_model_alias("iris", "champion", sklearn_like("iris"))


@pytest.mark.slow
def test_they_survive_a_migration_of_mlflow_or_come_back(store: Any, database: str, engine: Engine, iris: str) -> None:
    from mlflow.store.db.utils import _upgrade_db

    store.set_registered_model_alias("iris", "champion", "1")
    _upgrade_db(engine)
    if engine.dialect.name == "sqlite":
        rebuild(engine)
        assert len(store.quantgov_triggers().missing) == 3
    again: Any = open_store(f"quantgov:{database}")
    assert again.quantgov_triggers().ok
    assert not runs(engine, "UPDATE registered_model_aliases SET version = 2")


def rebuild(engine: Engine) -> None:
    """What Alembic does to change a column of SQLite: a new table, the rows copied, the old one dropped, renamed."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    with (
        engine.begin() as connection,
        Operations(MigrationContext.configure(connection)).batch_alter_table("model_versions") as batch,
    ):
        batch.alter_column("description", existing_type=sqlalchemy.String(5000), type_=sqlalchemy.Text())


# What SQL makes of a policy's globs, compared with what Python does.

GLOBS = st.text("ab*?[]!^-\\.]AB@ é", max_size=8)
NAMES = st.text("abAB[]!^-\\.*?@ é\n", max_size=6)


@given(GLOBS, st.lists(NAMES, max_size=8))
@settings(max_examples=300)
def test_sqlite_matches_as_python_does(glob: str, names: list[str]) -> None:
    import fnmatch

    patterns, connection = sql_patterns(fold(glob)), sqlite3.connect(":memory:")
    for name in filter(is_decidable, names):
        expected = fnmatch.fnmatchcase(fold(name), fold(glob))
        if patterns is None:
            assert not expected
            continue
        (found,) = connection.execute("SELECT trim(lower(?)) GLOB ?", (name, patterns[0])).fetchone()
        assert bool(found) == expected, (name, patterns)


RULES = st.lists(
    st.tuples(
        GLOBS.map(lambda glob: glob or "*"),
        st.dictionaries(
            st.sampled_from(["@a", "@A", "@b ", "Staging", "Production", "＠a", "@é"]),
            st.sampled_from(["open", "g", "refuse"]),
            max_size=4,
        ),
        st.sampled_from(["open", "refuse"]),
        st.sampled_from([None, None, "observe", "enforce"]),
    ),
    min_size=1,
    max_size=4,
)
ASKED = st.tuples(
    NAMES.filter(lambda name: "\x00" not in name), st.sampled_from(["a", "A", "b", "é", "none", "ａ", "a ", ""])
)


def policy_of(rules: list[Any]) -> Any:
    import yaml

    described = [
        {"models": glob, "destinations": named, "other_destinations": others, "mode": mode}
        for glob, named, others, mode in rules
    ]
    whole = {"schema": "quantgov/policy/v1", "name": "p", "gates": {"g": {"checks": []}}, "rules": described}
    return parse_policy(yaml.safe_dump(whole), source="p")


def never_more_than_python(connection: Connection, rules: list[Any], asked: list[Any]) -> None:
    """Sets aliases by SQL; the database lets through what is open, and refuses more only where it cannot fold."""
    policy = policy_of(rules)
    with sqlalchemy.orm.Session(connection) as session:
        tell(session, policy, append(session, Entry("policy", "ada", "test", policy_digest=policy.digest)))
        session.flush()
        for name, alias in asked:
            statement = text(
                "INSERT INTO registered_model_aliases (workspace, name, alias, version) VALUES ('default', :n, :a, 1)"
            )
            nested = session.begin_nested()
            try:
                session.execute(statement, {"n": name, "a": alias})
                let_through = True
            except DBAPIError as error:
                assert REFUSED in str(error), error
                let_through = False
            nested.rollback()
            observed = observes(policy, name)
            is_open = observed or destination_kind(policy, name, f"@{alias}") == "open"
            if is_decidable(name) and (observed or is_decidable(alias)):
                assert let_through == is_open, (name, alias, rule_rows(policy))
            else:
                assert not let_through


def test_two_spaces_are_one_to_the_gate_and_nothing_to_a_database(engine: Engine, store: Any) -> None:
    rules = [("my model", {"@a": "g"}, "refuse", None), ("*", {"@a": "open"}, "open", None)]
    with engine.connect() as connection:
        bare(connection)
        never_more_than_python(
            connection, rules, [("my  model", "a"), ("my model", "a"), ("other", "a"), ("other", "b  c")]
        )
        connection.rollback()


def bare(connection: Connection) -> None:
    """The table of aliases without its key to the models."""
    if connection.dialect.name == "postgresql":
        keys = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = 'registered_model_aliases'\\:\\:regclass"
        for key in connection.execute(text(keys)).scalars().all():
            connection.execute(text(f'ALTER TABLE registered_model_aliases DROP CONSTRAINT "{key}"'))


@given(RULES, st.lists(ASKED, max_size=8))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_decides_as_the_policy_or_refuses(
    engine: Engine, store: Any, rules: list[Any], asked: list[Any]
) -> None:
    with engine.connect() as connection:  # which checks no keys, so that any name can be tried
        bare(connection)
        never_more_than_python(connection, rules, asked)
        connection.rollback()


def test_workspaces_are_kept_apart(
    new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
    from mlflow.utils.workspace_context import WorkspaceContext

    database = new_sqlite_database()
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    plain = WorkspaceAwareSqlAlchemyStore(database)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    for workspace in ("default", "team"):
        with WorkspaceContext(workspace):
            plain.create_registered_model("iris")
            for _ in range(2):
                plain.create_model_version("iris", str(tmp_path / "model"))
    with WorkspaceContext("team"):
        plain.set_registered_model_alias("iris", "production", "2")
    store: Any = open_store(f"quantgov:{database}")  # before any request, so in no workspace
    with store._sessions() as session:
        found = session.execute(text("SELECT kind, workspace FROM quantgov_ledger WHERE kind = 'inherited'")).all()
    assert [tuple(row) for row in found] == [("inherited", "team")]
    with WorkspaceContext("team"):
        store.set_registered_model_alias("iris", "champion", "1")
        with pytest.raises(MlflowException, match=REFUSED):
            plain.delete_model_version("iris", "1")
    assert store.quantgov_verify().ok
    with WorkspaceContext("default"):
        with pytest.raises(MlflowException, match=REFUSED):
            plain.set_registered_model_alias("iris", "champion", "1")
        plain.delete_model_version("iris", "1")  # nobody has let this one through
    with store.engine.begin() as connection:
        triggers.remove(connection)
        connection.execute(text(ALIAS.format("champion", 2)))
    (wrong,) = store.quantgov_verify().pointers
    assert (wrong.workspace, wrong.problem) == ("default", "no row of the ledger has put it there")

"""What a running alias or a rollback needs cannot be deleted or renamed away, whatever happens at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.registry_store import open_store

POLICY = """
schema: quantgov/policy/v1
name: lineage-alone
mode: MODE
gates: {lineage: {checks: [lineage], lineage_level: structure}}
rules: [{models: "*", destinations: {"@champion": lineage, Production: lineage, "@candidate": open, None: open, Archived: open}}]
"""


@pytest.fixture
def open_one(
    database: str, logged: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Opens a store; the first one registers `parents/1`, `chat/1` made from it, and the parent again as `chat/2`."""

    def make(mode: str = "enforce") -> Any:
        (tmp_path / "policy.yaml").write_text(POLICY.replace("MODE", mode))
        monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
        store: Any = open_store(f"quantgov:{database}")
        if not (tmp_path / "parent").exists():
            parent = logged(tmp_path / "parent", "parent-bf16", None)
            store.create_registered_model("parents")
            store.create_registered_model("chat")
            store.create_model_version("parents", parent)
            store.create_model_version("chat", logged(tmp_path / "child", "gptq-w4g32", tmp_path / "parent"))
            store.create_model_version("chat", parent)
        return store

    return make


def refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(MlflowException, match=words) as raised:
        call()
    assert raised.value.get_http_status_code() == 403


def numbers(store: Any, name: str) -> list[str]:
    return sorted(str(one.version) for one in store.search_model_versions(f"name = '{name}'", max_results=10))


def test_what_a_pointer_stands_on_and_goes_back_to_stays(open_one: Callable[..., Any]) -> None:
    store = open_one()
    store.set_registered_model_alias("chat", "champion", "1")
    for spelled in ("1", " 1", "01"):
        refused(lambda spelled=spelled: store.delete_model_version("chat", spelled), "@champion points to it")
    refused(lambda: store.delete_model_version("chat", "2"), "it is what @champion rolls back to")
    refused(lambda: store.delete_model_version("parents", "1"), "what chat version 1 at @champion was made from")
    refused(lambda: store.delete_registered_model("parents"), "what chat version 1 at @champion was made from")
    refused(lambda: store.rename_registered_model("parents", "other"), "chat version 1 at @champion was made from")
    refused(lambda: store.delete_registered_model("chat"), "@champion points to version 1")
    refused(lambda: store.rename_registered_model("chat", "other"), "@champion points to version 1")
    assert (numbers(store, "chat"), numbers(store, "parents")) == (["1", "2"], ["1"])
    # Taken away, which is recorded, it protects nothing any more.
    store.delete_registered_model_alias("chat", "champion")
    store.delete_model_version("chat", "2")
    store.delete_registered_model("parents")
    assert [row["kind"] for row in store.quantgov_ledger()][:3] == ["deletion", "deletion", "alias-removed"]


def test_no_stage_is_a_way_to_delete(open_one: Callable[..., Any]) -> None:
    store = open_one()
    store.set_registered_model_alias("chat", "champion", "1")
    with pytest.raises(MlflowException):
        store.transition_model_version_stage("chat", "2", "Deleted_Internal", False)
    # Archiving what a rollback goes to leaves it there, and archiving others takes nothing from under an alias.
    store.transition_model_version_stage("chat", "2", "Archived", False)
    store.transition_model_version_stage("chat", "1", "Production", True)
    refused(lambda: store.delete_model_version("chat", "2"), "rolls back to")
    store.delete_registered_model_alias("chat", "champion")
    refused(lambda: store.delete_model_version("chat", "2"), "it is what Production rolls back to")
    assert numbers(store, "chat") == ["1", "2"]


def test_pointers_from_before_the_gate_are_protected_too(
    database: str, open_one: Callable[..., Any], tmp_path: Path
) -> None:
    store = open_one()
    with store.engine.begin() as connection:
        triggers.remove(connection)
        connection.execute(sqlalchemy.text("DELETE FROM quantgov_ledger"))
    SqlAlchemyStore(database).set_registered_model_alias("chat", "champion", "1")
    store = open_one()
    assert store.quantgov_ledger("chat")[0]["kind"] == "inherited"
    refused(lambda: store.delete_model_version("chat", "2"), "rolls back to")
    refused(lambda: store.delete_model_version("parents", "1"), "was made from")


def test_taken_out_nothing_is_lost_and_put_back_it_knows_what_moved(
    database: str, open_one: Callable[..., Any]
) -> None:
    def state(store: Any) -> Any:
        found = store.search_model_versions("name = 'chat'", max_results=10)
        return dict(store.get_registered_model("chat").aliases), {(one.version, one.source) for one in found}

    store = open_one()
    store.set_registered_model_alias("chat", "champion", "1")
    plain = SqlAlchemyStore(database)
    assert state(plain) == state(store)
    with store.engine.begin() as connection:  # as `quantgov db triggers --remove` does
        triggers.remove(connection)
    plain.set_registered_model_alias("chat", "champion", "2")
    plain.delete_model_version("chat", "1")
    plain.create_model_version("chat", "file:///new")
    assert sorted(str(number) for number, _ in state(plain)[1]) == ["2", "3"]
    (found,) = open_one().quantgov_pointers()
    assert (found["version"], found["how"], found["believed"]) == ("2", "unknown", False)
    found = open_one().quantgov_verify()
    assert found.first_bad is None and [one.destination for one in found.pointers] == ["@champion"]
    assert open_one().quantgov_triggers().ok


def test_where_the_gate_only_observes_it_is_recorded_and_done(open_one: Callable[..., Any]) -> None:
    store = open_one("observe")
    store.set_registered_model_alias("chat", "champion", "1")
    store.delete_model_version("chat", "2")
    row = store.quantgov_ledger("chat")[0]
    assert (row["kind"], row["decision"], row["version"]) == ("deletion", "observed", "2")
    assert store.quantgov_decision(row["decision_id"])["reasons"] == ["it is what @champion rolls back to"]
    assert numbers(store, "chat") == ["1"]


def test_a_rule_that_only_observes_takes_nothing_from_under_one_that_enforces(
    open_one: Callable[..., Any], tmp_path: Path
) -> None:
    store = open_one()
    store.set_registered_model_alias("chat", "champion", "1")
    rule = '{models: "par*", mode: observe, destinations: {}}'
    (tmp_path / "policy.yaml").write_text(POLICY.replace("MODE", "enforce").replace("rules: [", f"rules: [{rule}, "))
    store = open_store(f"quantgov:{store.db_uri}")
    refused(lambda: store.delete_model_version("parents", "1"), "what chat version 1 at @champion was made from")


@pytest.mark.parametrize(("victim", "version"), [("chat", "1"), ("chat", "2"), ("parents", "1")])
def test_a_promotion_between_the_look_and_the_deletion_is_seen(
    open_one: Callable[..., Any], victim: str, version: str
) -> None:
    store, other = open_one(), open_one()
    gather = store._gather_rests

    def promoted_meanwhile(*given: Any) -> None:
        gather(*given)
        other.set_registered_model_alias("chat", "champion", "1")

    store._gather_rests = promoted_meanwhile
    refused(lambda: store.delete_model_version(victim, version), "champion")
    assert (numbers(store, "chat"), numbers(store, "parents")) == (["1", "2"], ["1"])


@pytest.mark.parametrize(("victim", "version"), [("chat", "1"), ("chat", "2"), ("parents", "1")])
def test_a_deletion_between_the_judgement_and_the_promotion_is_seen(
    open_one: Callable[..., Any], victim: str, version: str
) -> None:
    store, other = open_one(), open_one()
    judge = store._judge

    def deleted_meanwhile(*given: Any) -> Any:
        found = judge(*given)
        if version in numbers(other, victim):
            other.delete_model_version(victim, version)
        return found

    store._judge = deleted_meanwhile
    _try(lambda: store.set_registered_model_alias("chat", "champion", "1"))
    held = dict(store.get_registered_model("chat").aliases)
    # Without the version in its own model the parent is still proved by the one that is named; without that it is not.
    assert held == ({"champion": 1} if (victim, version) == ("chat", "2") else {})


@pytest.mark.parametrize(("victim", "version"), [("chat", "1"), ("chat", "2"), ("parents", "1")])
@pytest.mark.parametrize("first", ["promotion", "deletion"])
def test_two_open_transactions_wait_for_each_other(
    open_one: Callable[..., Any], first: str, victim: str, version: str
) -> None:
    """The first has done its work and not committed when the second comes to where it would do its own."""
    promoting, deleting = open_one(), open_one()
    second_is_ready, holds = threading.Event(), threading.Event()

    def pause(record: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*given: Any, **named: Any) -> Any:
            found = record(*given, **named)
            holds.set()
            assert second_is_ready.wait(60)
            return found

        return recorded

    def announce(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*given: Any) -> Any:
            # SQLite has one writer, and looking takes evidence in: there the second waits before it looks.
            if promoting.engine.dialect.name == "sqlite":
                second_is_ready.set()
            found = look(*given)
            second_is_ready.set()
            return found

        return looked

    if first == "promotion":
        promoting._record, deleting._gather_rests = pause(promoting._record), announce(deleting._gather_rests)
    else:
        deleting._record_deed, promoting._judge = pause(deleting._record_deed), announce(promoting._judge)
    calls = {
        "promotion": lambda: _try(lambda: promoting.set_registered_model_alias("chat", "champion", "1")),
        "deletion": lambda: _try(lambda: deleting.delete_model_version(victim, version)),
    }
    threads = [threading.Thread(target=calls.pop(first))]
    threads[0].start()
    assert holds.wait(60)
    threads += [threading.Thread(target=call) for call in calls.values()]
    threads[1].start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    stands = dict(promoting.get_registered_model("chat").aliases) == {"champion": 1}
    there = version in numbers(promoting, victim)
    if first == "promotion":
        assert stands and there
    else:
        assert not there and stands == ((victim, version) == ("chat", "2"))
    assert promoting.quantgov_verify().ok


def _try(call: Callable[[], object]) -> None:
    try:
        call()
    except MlflowException as error:
        assert error.get_http_status_code() in {403, 404}, error

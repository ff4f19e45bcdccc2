"""Every door of the registry, on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.policy.loader import load_policy


def refused(call: Callable[[], object]) -> MlflowException:
    """Run a call that has to be refused."""
    with pytest.raises(MlflowException) as raised:
        call()
    assert raised.value.get_http_status_code() == 403
    assert str(raised.value.message).startswith("quantgov refused")
    assert "\n" not in str(raised.value.message)
    return raised.value


@pytest.mark.parametrize("alias", ["champion", "Champion", "production", "nobody-named-this"])
def test_an_unmeasured_version_gets_no_protected_alias(store: Any, quantized: str, alias: str) -> None:
    error = refused(lambda: store.set_registered_model_alias("chat", alias, quantized))
    assert dict(store.get_registered_model("chat").aliases) == {}
    row = store.quantgov_ledger("chat")[0]
    assert (row["kind"], row["decision"], row["destination"]) == ("denial", "refused", f"@{alias}")
    assert row["decision_id"] in str(error.message)
    assert store.quantgov_decision(row["decision_id"])["decision"] == "refused"


@pytest.mark.parametrize("stage", ["Production", "Staging"])
def test_an_unmeasured_version_gets_no_protected_stage(store: Any, quantized: str, stage: str) -> None:
    refused(lambda: store.transition_model_version_stage("chat", quantized, stage, False))
    assert store.get_model_version("chat", quantized).current_stage == "None"


def test_open_destinations_stay_open(store: Any, quantized: str) -> None:
    store.set_registered_model_alias("chat", "candidate", quantized)
    store.transition_model_version_stage("chat", quantized, "Archived", False)
    assert store.get_model_version_by_alias("chat", "candidate").version == int(quantized)


def test_a_model_without_language_weights_works_as_on_plain_mlflow(
    store: Any, sklearn_like: Callable[[str], str]
) -> None:
    first, second = sklearn_like("iris"), sklearn_like("iris")
    store.set_registered_model_alias("iris", "champion", first)
    store.transition_model_version_stage("iris", first, "Production", False)
    store.transition_model_version_stage("iris", second, "Production", True)
    assert store.get_model_version("iris", first).current_stage == "Archived"
    assert store.get_model_version("iris", second).current_stage == "Production"
    store.delete_registered_model_alias("iris", "champion")
    kinds = [row["kind"] for row in store.quantgov_ledger("iris")]
    assert kinds == ["alias-removed", "stage-left", "promotion", "promotion", "promotion"]


def test_a_gated_pointer_protects_its_version_and_its_model(store: Any, sklearn_like: Callable[[str], str]) -> None:
    version = sklearn_like("iris")
    store.set_registered_model_alias("iris", "champion", version)
    refused(lambda: store.delete_model_version("iris", version))
    refused(lambda: store.rename_registered_model("iris", "other"))
    refused(lambda: store.delete_registered_model("iris"))
    store.delete_registered_model_alias("iris", "champion")
    store.rename_registered_model("iris", "other")
    store.delete_registered_model("other")


def test_a_change_that_fails_leaves_no_row(
    store: Any, sklearn_like: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, rows = sklearn_like("iris"), len(store.quantgov_ledger())

    def crash(*_: object) -> None:
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(SqlAlchemyStore, "set_registered_model_alias", crash)
    with pytest.raises(MlflowException):
        store.set_registered_model_alias("iris", "champion", version)
    assert len(store.quantgov_ledger()) == rows


def test_a_row_that_fails_leaves_no_change(
    store: Any, sklearn_like: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = sklearn_like("iris")

    def crash(*_: object) -> None:
        raise RuntimeError("the ledger cannot be written")

    monkeypatch.setattr(ledger, "append", crash)
    with pytest.raises(MlflowException):
        store.set_registered_model_alias("iris", "champion", version)
    assert dict(store.get_registered_model("iris").aliases) == {}


def test_promotions_at_once_leave_one_row_each_and_an_unbroken_chain(
    store: Any, sklearn_like: Callable[[str], str]
) -> None:
    versions = [sklearn_like("iris") for _ in range(4)]
    threads = [
        threading.Thread(target=store.set_registered_model_alias, args=("iris", "champion", version))
        for version in versions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [row for row in store.quantgov_ledger("iris") if row["kind"] == "promotion"]
    assert sorted(row["version"] for row in rows) == sorted(versions)
    assert str(store.get_model_version_by_alias("iris", "champion").version) == rows[0]["version"]
    assert store.quantgov_verify().ok


def test_pointers_from_before_are_inherited_once(database: str, tmp_path: Path) -> None:
    plain = SqlAlchemyStore(database)
    plain.create_registered_model("old")
    (tmp_path / "old").mkdir()
    plain.create_model_version("old", str(tmp_path / "old"))
    plain.set_registered_model_alias("old", "champion", "1")
    for _ in range(2):
        rows = open_store(f"quantgov:{database}").quantgov_ledger("old")
        assert [(row["kind"], row["destination"], row["version"]) for row in rows] == [("inherited", "@champion", "1")]


@pytest.mark.slow
def test_workers_that_start_at_once_enter_everything_once(database: str, tmp_path: Path) -> None:
    plain = SqlAlchemyStore(database)
    plain.create_registered_model("old")
    (tmp_path / "old").mkdir()
    plain.create_model_version("old", str(tmp_path / "old"))
    plain.set_registered_model_alias("old", "champion", "1")
    script = f"from mlflow_quantgov.gate.registry_store import open_store; open_store({'quantgov:' + database!r})"
    workers = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        _, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
    store: Any = open_store(f"quantgov:{database}")
    assert [row["kind"] for row in store.quantgov_ledger()] == ["inherited", "policy"]
    assert store.quantgov_verify().ok


def test_an_edited_row_is_found(store: Any, quantized: str) -> None:
    refused(lambda: store.set_registered_model_alias("chat", "champion", quantized))
    with store.engine.begin() as connection:
        triggers.remove(connection)
        connection.execute(sqlalchemy.text("UPDATE quantgov_ledger SET decision = 'allowed' WHERE seq = 2"))
    found = store.quantgov_verify()
    assert (found.ok, found.first_bad) == (False, 2)


def test_observing_records_and_lets_through(
    database: str, tmp_path: Path, skills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "observe.yaml"
    policy.write_text(load_policy().text.replace("mode: enforce", "mode: observe"))
    monkeypatch.setenv("QUANTGOV_POLICY", str(policy))
    store: Any = open_store(f"quantgov:{database}")
    store.create_registered_model("chat")
    version = store.create_model_version("chat", str(skills)).version
    store.set_registered_model_alias("chat", "champion", str(version))
    assert store.quantgov_ledger("chat")[0]["decision"] == "observed"


def test_creation_in_a_protected_model_is_gated(
    database: str, tmp_path: Path, skills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "create.yaml"
    policy.write_text(load_policy().text.replace("create: open", "create: gated"))
    monkeypatch.setenv("QUANTGOV_POLICY", str(policy))
    store: Any = open_store(f"quantgov:{database}")
    store.create_registered_model("prod")
    refused(lambda: store.create_model_version("prod", str(skills)))
    assert store.search_model_versions("name = 'prod'", max_results=10) == []


def test_files_that_cannot_be_reached_refuse(store: Any, tmp_path: Path) -> None:
    store.create_registered_model("gone")
    version = store.create_model_version("gone", str(tmp_path / "never-was")).version
    error = refused(lambda: store.set_registered_model_alias("gone", "champion", str(version)))
    assert "cannot be reached" in str(error.message)


def test_a_checkpoint_that_is_a_pickle_is_not_an_ordinary_model(store: Any, tmp_path: Path) -> None:
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    store.create_registered_model("pickle")
    version = store.create_model_version("pickle", str(tmp_path / "ckpt")).version
    refused(lambda: store.set_registered_model_alias("pickle", "champion", str(version)))

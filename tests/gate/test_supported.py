"""An MLflow in which the gate could be walked around is refused at the start."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore

from mlflow_quantgov.gate.doors.methods import DOORS, READS, unjudged
from mlflow_quantgov.gate.doors.supported import TESTED, UnsupportedMlflowError, check_instance, check_mlflow

STORES = (SqlAlchemyStore, WorkspaceAwareSqlAlchemyStore)


def test_every_method_of_the_installed_store_was_judged() -> None:
    for store in STORES:
        assert unjudged(store) == []
        assert [name for name in (*DOORS, *READS) if not callable(getattr(store, name, None))] == []
    assert not set(DOORS) & READS
    check_mlflow()


@pytest.mark.parametrize("version", ["3.16.1", "2.22.0", "4.0.0", "3.0"])
def test_another_version_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedMlflowError, match=rf"MLflow {version} is not supported.*Fix: pip install"):
        check_mlflow(version=version)


@pytest.mark.parametrize("version", [*TESTED, "3.17.2", "3.99.0"])
def test_supported_versions_are_let_in(version: str) -> None:
    check_mlflow(version=version)


def test_a_method_that_nobody_judged_is_refused() -> None:
    class Tomorrow(SqlAlchemyStore):
        def move_registered_model_aliases(self, name: str, to: str) -> None:
            """What a later MLflow may bring."""

    with pytest.raises(UnsupportedMlflowError, match="nobody has judged: move_registered_model_aliases"):
        check_mlflow((Tomorrow,))


def test_a_method_that_takes_something_else_is_refused() -> None:
    class Tomorrow(SqlAlchemyStore):
        def set_registered_model_alias(self, alias: str, name: str, version: str) -> None:
            """The same name, and other parameters."""

    with pytest.raises(UnsupportedMlflowError, match="set_registered_model_alias"):
        check_mlflow((Tomorrow,))


def test_a_method_that_takes_another_way_is_refused() -> None:
    """`set_prompt_alias` is left alone because it calls `set_registered_model_alias`; here it writes by itself."""

    class Tomorrow(SqlAlchemyStore):
        def set_prompt_alias(self, name: str, alias: str, version: str | int) -> None:
            with self.ManagedSessionMaker(read_only=False) as session:
                session.execute(name)

    with pytest.raises(UnsupportedMlflowError, match="set_prompt_alias"):
        check_mlflow((Tomorrow,))


def test_a_method_that_is_gone_is_refused() -> None:
    class Tomorrow(SqlAlchemyStore):
        rename_registered_model = None

    with pytest.raises(UnsupportedMlflowError, match="rename_registered_model"):
        check_mlflow((Tomorrow,))


def test_a_store_without_what_the_gate_wraps_is_refused(store: Any) -> None:
    check_instance(store)
    with pytest.raises(UnsupportedMlflowError, match="ManagedSessionMaker, engine"):
        check_instance(object())

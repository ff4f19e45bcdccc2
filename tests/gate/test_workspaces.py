"""The gate in a registry with workspaces: every one of them is behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from mlflow.utils.workspace_context import ServerWorkspaceContext

from mlflow_quantgov.gate.registry_store import GatedWorkspaceStore, open_store
from mlflow_quantgov.pages.views import build_views


@pytest.fixture
def database(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database whose registry has workspaces."""
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    return database


def test_a_store_opens_before_anybody_named_a_workspace(store: Any) -> None:
    """As it does when a server starts."""
    assert isinstance(store, GatedWorkspaceStore)


def test_pointers_of_every_workspace_are_inherited(database: str, tmp_path: Path) -> None:
    plain = WorkspaceAwareSqlAlchemyStore(database)
    for workspace in ("default", "team-a"):
        with ServerWorkspaceContext(workspace):
            plain.create_registered_model("chat")
            plain.create_model_version("chat", str(tmp_path))
            plain.set_registered_model_alias("chat", "champion", "1")
    store: Any = open_store(f"quantgov:{database}")
    found = [(row["kind"], row["workspace"]) for row in store.quantgov_ledger() if row["model"] == "chat"]
    assert sorted(found) == [("inherited", "default"), ("inherited", "team-a")]


def test_the_ledger_of_a_model_is_that_of_its_workspace(store: Any, skills: Path) -> None:
    """The page of a model said of its version 1 what was decided on another team's version 1 of that name."""
    for workspace in ("default", "team-a"):
        with ServerWorkspaceContext(workspace):
            store.create_registered_model("chat")
            store.create_model_version("chat", str(skills))
    with ServerWorkspaceContext("team-a"), pytest.raises(MlflowException, match="quantgov refused"):
        store.set_registered_model_alias("chat", "champion", "1")
    app = Flask("pages")
    app.register_blueprint(build_views(lambda: store))
    for workspace, kinds in (("default", []), ("team-a", ["denial"])):
        with ServerWorkspaceContext(workspace):
            assert [row["kind"] for row in store.quantgov_ledger("chat")] == kinds
            assert ('class="refused"' in app.test_client().get("/quantgov/models/chat").text) == bool(kinds)
    (row,) = [row for row in store.quantgov_ledger() if row["kind"] == "denial"]
    assert row["workspace"] == "team-a"
    with ServerWorkspaceContext("default"):
        for page in ("/quantgov/", f"/quantgov/decisions/{row['decision_id']}"):
            text = app.test_client().get(page).text
            assert "workspace team-a" in " ".join(text.split())
        assert "/quantgov/models/chat" not in text  # that would be the page of another model


def test_every_workspace_is_behind_the_gate(store: Any, skills: Path) -> None:
    for workspace in ("default", "team-a"):
        with ServerWorkspaceContext(workspace):
            store.create_registered_model("chat")
            store.create_model_version("chat", str(skills))
            with pytest.raises(MlflowException, match="quantgov refused"):
                store.set_registered_model_alias("chat", "champion", "1")
            assert dict(store.get_registered_model("chat").aliases) == {}


def test_a_workspace_in_which_a_gated_pointer_stands_may_not_go(store: Any, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    with ServerWorkspaceContext("team-a"):
        store.create_registered_model("iris")
        store.create_model_version("iris", str(tmp_path))
        store.set_registered_model_alias("iris", "champion", "1")
    with pytest.raises(MlflowException, match="workspace team-a cannot be deleted, because @champion of iris"):
        store.quantgov_guard_workspace("team-a")
    store.quantgov_guard_workspace("team-b")
    with ServerWorkspaceContext("team-a"):
        store.delete_registered_model_alias("iris", "champion")
    # The triggers keep a version that was let through; deleted by its name, the ledger says what became of it.
    with pytest.raises(
        MlflowException, match=r"because iris version 1 was let through to @champion\. Fix: delete iris"
    ):
        store.quantgov_guard_workspace("team-a")
    with ServerWorkspaceContext("team-a"):
        store.delete_registered_model("iris")
        store.create_registered_model("iris")
        store.create_model_version("iris", str(tmp_path))
    store.quantgov_guard_workspace("team-a")


def test_who_logged_a_version_is_not_forgotten_for_one_of_another_workspace(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever has a workspace of their own could have nobody approve of anything elsewhere."""
    (tmp_path / "policy.yaml").write_text(
        "{schema: quantgov/policy/v1, name: two, gates: {full: {checks: [approvals], approvals: {count: 1, not_by: [logger]}}},"
        ' rules: [{models: "*", destinations: {"@champion": full}}]}'
    )
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    store: Any = open_store(f"quantgov:{database}")
    for workspace, user in (("default", "ada"), ("team-a", "eve")):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        with ServerWorkspaceContext(workspace):
            store.create_registered_model("chat")
            store.create_model_version("chat", str(tmp_path / workspace))
    for workspace, user in (("default", "ada"), ("team-a", "eve")):
        with ServerWorkspaceContext(workspace):
            assert store.quantgov_facts("chat", "1").logged_by == user

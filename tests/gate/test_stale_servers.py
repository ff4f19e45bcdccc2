"""Two servers on one database, of which one has been started again with other files: the other decides nothing any more."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from flask import Flask
from mlflow.exceptions import MlflowException
from mlflow.utils.workspace_context import ServerWorkspaceContext

from mlflow_quantgov.errors import PolicyError
from mlflow_quantgov.evidence.predicates import Approval, Provenance
from mlflow_quantgov.evidence.signing import TrustedKey, TrustedKeys, load_signer, make_key, write_trusted_keys
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.gate import in_force
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.pages.api import build_api
from mlflow_quantgov.pages.views import build_views
from mlflow_quantgov.policy.loader import load_policy

STALE = "not in force any more"


def refused(ask: Callable[[], Any], words: str) -> None:
    with pytest.raises(MlflowException, match=words) as raised:
        ask()
    assert raised.value.get_http_status_code() == 403


def adas_key(folder: Path) -> TrustedKey:
    public = load_signer(make_key("ada", folder / "people")[0]).public
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return TrustedKey(id=public.id, public_key=public.text, name="ada", roles=("measurer",), not_before=start)


@pytest.fixture
def start(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts another server on the same database."""

    def started(policy: str | None = None, keys: TrustedKeys | None = None) -> Any:
        (tmp_path / "policy.yaml").write_text(policy or load_policy().text)
        monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
        if keys is not None:
            write_trusted_keys(tmp_path / "keys.yaml", keys)
            monkeypatch.setenv("QUANTGOV_KEYS", str(tmp_path / "keys.yaml"))
        return open_store(f"quantgov:{database}")

    return started


def test_a_server_that_only_observed_lets_nothing_through_once_another_enforces(
    start: Callable[..., Any], skills: Path
) -> None:
    observing = start(load_policy().text.replace("mode: enforce", "mode: observe"))
    observing.create_registered_model("chat")
    observing.create_model_version("chat", str(skills))
    enforcing = start()
    for move in (
        lambda: observing.set_registered_model_alias("chat", "champion", "1"),
        lambda: observing.transition_model_version_stage("chat", "1", "Production", False),
        lambda: observing.delete_model_version("chat", "1"),
        lambda: observing.set_registered_model_alias("chat", "candidate", "1"),
    ):
        refused(move, STALE)
    assert dict(enforcing.get_registered_model("chat").aliases) == {}
    # An alias may be taken away by anybody, and what the policy in force leaves open goes on there.
    enforcing.set_registered_model_alias("chat", "candidate", "1")
    observing.delete_registered_model_alias("chat", "candidate")
    assert enforcing.quantgov_verify().ok


def test_a_server_whose_files_are_not_in_force_answers_no_question_by_them(
    start: Callable[..., Any], skills: Path
) -> None:
    """`quantgov check` said what an earlier policy would decide; its pages showed reports by it, and said nothing of it."""
    older = start()
    older.create_registered_model("chat")
    older.create_model_version("chat", str(skills))
    open_to_all = start(load_policy().text.replace('models: "*"', 'models: "gated-*"'))
    observing = start(load_policy().text.replace("mode: enforce", "mode: observe"))
    observing.set_registered_model_alias("chat", "champion", "1")
    newest = start()
    assert newest.quantgov_stale() is None and older.quantgov_stale() is None  # the same file
    assert not older.quantgov_check("chat", "1", "@champion").allowed
    refused(lambda: observing.quantgov_check("chat", "1", "@champion"), STALE)
    refused(lambda: observing.quantgov_recheck("chat", "1", "@champion"), STALE)
    app = Flask("stale")
    app.register_blueprint(build_views(lambda: observing))
    app.register_blueprint(build_api(lambda: observing))
    pages = app.test_client()
    assert "This server decides nothing: the policy file" in pages.get("/quantgov/").text
    assert STALE in pages.get("/quantgov/api/deployment").json["stale"]
    report = pages.get("/quantgov/models/chat/versions/1")
    assert report.status_code == 403 and STALE in report.text and "Fix: restart this server" in report.text
    asked = {"name": "chat", "version": "1", "to": "@champion"}
    error = pages.post("/quantgov/api/check", json=asked).json["error"]
    assert STALE in error["message"] and error["fix"].startswith("restart this server")
    assert "Fix" not in error["message"]
    # As if nothing gated it: so says the policy that this one has read.
    app = Flask("open")
    app.register_blueprint(build_views(lambda: open_to_all))
    assert app.test_client().get("/quantgov/models/chat/versions/1").status_code == 403


def test_a_server_whose_files_are_not_in_force_denies_nothing_by_them(start: Callable[..., Any], skills: Path) -> None:
    """It recorded a denial by the earlier policy, and said what that one lacked."""
    older = start()
    older.create_registered_model("chat")
    older.create_model_version("chat", str(skills))
    newest = start(load_policy().text.replace("name: default", "name: another"))
    refused(lambda: older.set_registered_model_alias("chat", "champion", "1"), STALE)
    refused(lambda: older.set_registered_model_alias("chat", "ch\u0430mpion", "1"), STALE)  # a Cyrillic letter
    assert [row["kind"] for row in newest.quantgov_ledger("chat")] == []


def test_a_server_whose_policy_is_not_in_force_takes_no_approval(start: Callable[..., Any], skills: Path) -> None:
    """It said of one that was given under the policy in force that another is, and took those of its own, void elsewhere."""
    older = start()
    older.create_registered_model("chat")
    older.create_model_version("chat", str(skills))
    weights = older.quantgov_facts("chat", "1").model.weights
    start(load_policy().text.replace("name: default", "name: another"))
    content = Approval.measured(
        provenance=Provenance(measured_at=datetime.now(UTC), tool_version="1"), model="chat", version="1", created=1,
        manifest=weights, destination="@champion", policy=weights,
    )  # fmt: skip
    statement = Statement.about(weights, content, name="chat").to_bytes()
    refused(lambda: older.quantgov_take_in("chat", "1", statement), STALE)


def test_a_server_that_only_observed_has_no_workspace_deleted_once_another_enforces(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    observing = start(load_policy().text.replace("mode: enforce", "mode: observe"))
    observing.quantgov_guard_workspace("team-a")
    enforcing = start()
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    with ServerWorkspaceContext("team-a"):
        enforcing.create_registered_model("iris")
        enforcing.create_model_version("iris", str(tmp_path))
        enforcing.set_registered_model_alias("iris", "champion", "1")
    refused(lambda: observing.quantgov_guard_workspace("team-a"), STALE)


def test_a_worker_that_dies_and_is_started_again_puts_no_earlier_policy_in_force(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, skills: Path
) -> None:
    """Nobody started that server again: whoever can make a worker fall over would choose the policy."""
    observes = load_policy().text.replace("mode: enforce", "mode: observe")
    monkeypatch.setenv(in_force.START, "first")
    start(observes)
    handed_down = os.environ[in_force.SEEN]
    start(observes)  # its workers
    monkeypatch.setenv(in_force.START, "second")
    enforcing = start()
    enforcing.create_registered_model("chat")
    enforcing.create_model_version("chat", str(skills))
    monkeypatch.setenv(in_force.START, "first")
    monkeypatch.setenv(in_force.SEEN, handed_down)
    again = start(observes)
    refused(lambda: again.set_registered_model_alias("chat", "champion", "1"), STALE)
    refused(lambda: enforcing.set_registered_model_alias("chat", "champion", "1"), "rollback-archive")
    # Started by somebody, it is another start.
    monkeypatch.setenv(in_force.START, "third")
    start(observes).set_registered_model_alias("chat", "champion", "1")


def test_the_policy_that_was_put_back_is_in_force_again(start: Callable[..., Any], sklearn_like: Any) -> None:
    first = start()
    start(load_policy().text.replace("name: default", "name: another"))
    sklearn_like("iris")
    refused(lambda: first.set_registered_model_alias("iris", "champion", "1"), STALE)
    start()
    first.set_registered_model_alias("iris", "champion", "1")


def test_what_only_the_policy_in_force_gates_is_not_made_by_an_older_one(
    start: Callable[..., Any], skills: Path
) -> None:
    """Creating a version is a promotion now, or it has to be written down who logged it."""
    older = start()
    older.create_registered_model("chat")
    create = lambda: older.create_model_version("chat", str(skills))  # noqa: E731
    full = "kernel-support, benchmark, rollback-archive, approvals]"
    gated = load_policy().text.replace("create: open", "create: gated")
    by_others = load_policy().text.replace(full, f"{full}\n    approvals: {{count: 1, not_by: [logger]}}")
    for text in (gated, by_others):
        assert text != load_policy().text
        start(text)
        refused(create, STALE)
    start(load_policy().text.replace("name: default", "name: another"))
    assert create().version == 1


def test_a_server_that_knows_of_no_revocation_decides_nothing(
    start: Callable[..., Any], tmp_path: Path, sklearn_like: Any
) -> None:
    key = adas_key(tmp_path)
    before = start(keys=TrustedKeys(keys=(key,)))
    sklearn_like("iris")
    before.set_registered_model_alias("iris", "champion", "1")
    lost = key.model_copy(update={"revoked_at": datetime.now(UTC), "reason": "laptop stolen"})
    after = start(keys=TrustedKeys(keys=(lost,)))
    refused(
        lambda: before.set_registered_model_alias("iris", "production", "1"), "the keys file that this server has read"
    )
    after.set_registered_model_alias("iris", "production", "1")


def test_who_opens_the_registry_beside_a_server_and_names_no_files_changes_nothing(
    start: Callable[..., Any], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sklearn_like: Any
) -> None:
    """A look at the ledger from a shell without the server's variables put the shipped policy, and no keys, in force."""
    key = adas_key(tmp_path)
    server = start(load_policy().text.replace("name: default", "name: ours"), TrustedKeys(keys=(key,)))
    rows = server.quantgov_ledger(None, 1000)
    for name in ("QUANTGOV_POLICY", "QUANTGOV_KEYS"):
        monkeypatch.delenv(name)
    beside = open_store(f"quantgov:{database}")
    assert (beside.quantgov_policy().name, beside.quantgov_keys()) == ("ours", server.quantgov_keys())
    assert beside.quantgov_ledger(None, 1000) == rows
    sklearn_like("iris")
    server.set_registered_model_alias("iris", "champion", "1")
    beside.set_registered_model_alias("iris", "production", "1")
    # A server that names none decides by the shipped policy, and says so.
    monkeypatch.setenv("_MLFLOW_SERVER_REGISTRY_STORE", f"quantgov:{database}")
    plain = open_store(f"quantgov:{database}")
    assert (plain.quantgov_policy().name, plain.quantgov_keys().keys) == ("default", ())
    assert {row["kind"] for row in plain.quantgov_ledger(None, 1000)[:2]} == {"policy", "keys"}
    refused(lambda: server.set_registered_model_alias("iris", "champion", "1"), STALE)


@pytest.mark.parametrize("table", ["quantgov_policies", "quantgov_keys"])
def test_what_is_in_force_and_was_not_kept_is_not_guessed(
    start: Callable[..., Any], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    key = adas_key(tmp_path)
    server = start(keys=TrustedKeys(keys=(key,)))
    with server.engine.begin() as connection:
        triggers.remove(connection)
        connection.execute(sqlalchemy.text(f"DELETE FROM {table}"))
    for name in ("QUANTGOV_POLICY", "QUANTGOV_KEYS"):
        monkeypatch.delenv(name)
    with pytest.raises(PolicyError, match="is not in the database as it was read"):
        open_store(f"quantgov:{database}")

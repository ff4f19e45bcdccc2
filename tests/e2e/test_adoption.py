"""The gate put in front of a registry that runs, and taken out again: real servers, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException

import mlflow_quantgov as qg
from mlflow_quantgov.demo.server import free_port, gated_server
from mlflow_quantgov.errors import UsageError

pytestmark = pytest.mark.slow

POLICY = """
schema: quantgov/policy/v1
name: adopting
mode: MODE
GRACE
gates: {archive: {checks: [rollback-archive]}}
rules: [{models: "*", destinations: {"@champion": archive, "@candidate": open, None: open, Archived: open}}]
"""


@contextmanager
def plain_server(folder: Path, database: str, port: int) -> Iterator[str]:
    """MLflow's own server, without anything of ours."""
    url = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database),
        *("--artifacts-destination", str(folder / "artifacts")),
        *("--host", "127.0.0.1", "--port", url.rsplit(":", 1)[1], "--workers", "1"),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # five processes that nobody asks here
    with (folder / "plain.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        for _ in range(240):
            assert process.poll() is None, (folder / "plain.log").read_text()
            try:
                if requests.get(f"{url}/health", timeout=5).ok:
                    break
            except requests.RequestException:
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mlflow.db'}"
    return str(request.getfixturevalue("new_postgres_database")())


class Registry:
    """One database behind one server after the other."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.port = free_port()  # one for all: MLflow's client keeps the address under which it first met a model

    @contextmanager
    def gated(self, mode: str, grace: str = "") -> Iterator[mlflow.MlflowClient]:
        policy = self.folder / f"{mode}.yaml"
        policy.write_text(POLICY.replace("MODE", mode).replace("GRACE", grace))
        with gated_server(self.folder, policy, self.database, port=self.port) as url:
            yield self._client(url)

    @contextmanager
    def plain(self) -> Iterator[mlflow.MlflowClient]:
        with plain_server(self.folder, self.database, self.port) as url:
            yield self._client(url)

    def _client(self, url: str) -> mlflow.MlflowClient:
        mlflow.set_tracking_uri(url)
        mlflow.set_registry_uri(url)
        os.environ["MLFLOW_TRACKING_URI"] = url
        return mlflow.MlflowClient()


@pytest.fixture
def registry(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    yield Registry(database, tmp_path)
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def quantgov(*arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_quantgov", *arguments, "--json"], capture_output=True, text=True, timeout=300
    )
    return done.returncode, json.loads(done.stdout)


def state(client: mlflow.MlflowClient) -> Any:
    versions = client.search_model_versions("name = 'chat'")
    aliases = dict(client.get_registered_model("chat").aliases)
    return aliases, sorted((str(one.version), one.source, one.current_stage, dict(one.tags)) for one in versions)


def test_observe_then_enforce_with_grace_then_out_again(registry: Registry, skills: Path, tmp_path: Path) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    with registry.plain() as client:
        for _ in range(2):
            qg.log_parent(skills, name="parent", registered_model_name="chat", target="cpu-llamacpp")
        client.set_registered_model_alias("chat", "champion", "1")
        client.set_model_version_tag("chat", "1", "team", "support")
        before = state(client)

    with registry.gated("observe") as client:
        assert state(client) == before
        code, found = quantgov("recheck")
        assert code == 3 and [one["standing"]["how"] for one in found["pointers"]] == ["inherited"]
        # Everything is let through, recorded, and red.
        code, promoted = quantgov("promote", "models:/chat/2", "--to", "@champion")
        assert (code, promoted["decision"], promoted["changed"]) == (0, "refused", True)
        assert client.get_model_version_by_alias("chat", "champion").version in {2, "2"}
        page = requests.get(f"{mlflow.get_registry_uri()}/quantgov/", timeout=60).text
        assert "Observing only" in page and 'class="observed"' in page
        code, doctor = quantgov("doctor")
        assert code == 1 and any(one["what"] == "policy" and one["outcome"] == "fail" for one in doctor["findings"])
        qg.load_model("models:/chat@champion")

    with registry.gated("enforce", f"inherited: {{grace_until: {tomorrow}}}") as client:
        qg.load_model("models:/chat@champion")
        with pytest.raises(MlflowException, match="quantgov refused"):
            client.set_registered_model_alias("chat", "champion", "1")
        asked = datetime.now(UTC).date()
        code, found = quantgov("recheck", "chat")
        stands = found["pointers"][0]["standing"]
        assert (code, stands["how"], stands["believed"]) == (3, "observed", True)
        # Midnight may have passed meanwhile.
        assert stands["days_left"] in {(tomorrow - day).days + 1 for day in (asked, datetime.now(UTC).date())}
        qg.archive("models:/chat/1", str(tmp_path / "archive"))
        qg.drill("models:/chat/1", str(tmp_path / "archive"))
        assert qg.promote("models:/chat/1", "@champion").allowed
        assert quantgov("recheck")[0] == 0
        assert quantgov("audit", "verify")[1]["ok"]
        gated = state(client)

    # The triggers guard the database whoever serves it: taking the gate out begins with them.
    with registry.plain() as client, pytest.raises(MlflowException, match="quantgov refused"):
        client.set_registered_model_alias("chat", "champion", "2")
    # The command says what is missing now: 0 all the same.
    assert quantgov("db", "triggers", "--remove", "--backend-store-uri", registry.database)[0] == 0
    with registry.plain() as client:
        # Not one version, alias or tag is lost, and MLflow does again whatever it is asked.
        assert state(client) == gated
        client.set_registered_model_alias("chat", "champion", "2")
        qg.log_parent(skills, name="parent", registered_model_name="chat", target="cpu-llamacpp")
        client.delete_model_version("chat", "1")
        assert sorted(one[0] for one in state(client)[1]) == ["2", "3"]
        assert mlflow.pyfunc.load_model("models:/chat/2") is not None

    with registry.gated("enforce") as client:
        # Back again, it knows what was moved meanwhile.
        assert state(client)[0] == {"champion": "2"} or state(client)[0] == {"champion": 2}
        code, found = quantgov("recheck")
        assert found["pointers"][0]["standing"]["how"] == "unknown" and code in {1, 3}
        with pytest.raises(UsageError, match="no approval"):
            qg.load_model("models:/chat@champion")
        code, found = quantgov("audit", "verify")
        assert (code, found["first_bad"], [one["destination"] for one in found["pointers"]]) == (4, None, ["@champion"])

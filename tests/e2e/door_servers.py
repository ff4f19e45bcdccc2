"""Servers of every kind that the doors are tried on: plain MLflow and gated, each with its own way of being run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import requests

from mlflow_quantgov.demo.server import _stop, free_port

ADMIN = ("admin", "a password of twenty")
WORKSPACE = "team-a"
HEADER = "X-MLFLOW-WORKSPACE"
POLICY = {
    "schema": "quantgov/policy/v1",
    "name": "doors",
    "gates": {"full": {"checks": ["identity", "task-eval"]}},
    "rules": [
        {"models": "protected*", "create": "gated", "destinations": {"@champion": "full", "Production": "full"}},
        {"models": "sandbox*", "destinations": {"@champion": "open", "Production": "open"}, "other_destinations": "open"},
        {
            "models": "*",
            "destinations": {
                "@champion": "full", "Production": "full", "Staging": "full",
                "@candidate": "open", "None": "open", "Archived": "open",
            },
        },
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """How a server is run."""

    name: str
    gated: bool = True
    database: str = "sqlite"
    gunicorn: bool = False
    workspaces: bool = False
    prefix: str = ""
    login: bool = False


@dataclass(frozen=True)
class Server:
    """A running server with one run, whose artifacts hold a language model that nobody measured."""

    kind: Kind
    url: str
    """Its address, prefix included: what clients call the tracking URI."""
    database: str
    folder: Path
    log: Path
    source: str = ""
    run_id: str = ""
    small: str = ""
    """Source of a version without language-model weights."""
    small_run_id: str = ""
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, body: object = None, **kwargs: object) -> requests.Response:
        """Send one request, signed in where the server asks for it."""
        return self.session.request(method, f"{self.url}{path}", json=body, timeout=180, **kwargs)  # type: ignore[arg-type]


@contextmanager
def serve(kind: Kind, folder: Path, database: str, skills: Path) -> Iterator[Server]:
    """Run a server of a kind; it is ended afterwards."""
    port = free_port()
    (folder / "policy.yaml").write_text(json.dumps(POLICY))
    module, options = ("mlflow_quantgov", ["--policy", str(folder / "policy.yaml")]) if kind.gated else ("mlflow", [])
    options += ["--backend-store-uri", database, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--no-serve-artifacts", "--default-artifact-root", str(folder / "artifacts")]
    options += ["--gunicorn-opts", "--timeout 120"] if kind.gunicorn else []
    options += ["--static-prefix", kind.prefix] if kind.prefix else []
    options += ["--enable-workspaces"] if kind.workspaces else []
    options += ["--basic-auth"] if kind.login else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "QUANTGOV_"))}
    environment |= {
        "QUANTGOV_CACHE": str(folder / "cache"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret of this test",
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "server", *options],
            stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
    server = Server(kind, f"http://127.0.0.1:{port}{kind.prefix}", database, folder, log)
    if kind.login:
        server.session.auth = ADMIN
    try:
        _wait(server, process)
        yield _with_runs(server, skills)
    finally:
        _stop(process)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if server.call("GET", "/health").ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    raise AssertionError(f"{server.kind.name} did not come up:\n{server.log.read_text()[-3000:]}")


def _with_runs(server: Server, skills: Path) -> Server:
    """Make the workspace and the two runs."""
    if server.kind.workspaces:
        server.call("POST", "/api/3.0/mlflow/workspaces", {"name": WORKSPACE}).raise_for_status()
        server.session.headers[HEADER] = WORKSPACE  # only now: for one that is not there every request is a 404
    source, run_id = add_run(server, lambda place: shutil.copytree(skills, place))
    small, small_run_id = add_run(server, write_small)
    return replace(server, source=source, run_id=run_id, small=small, small_run_id=small_run_id)


def add_run(server: Server, fill: Callable[[Path], object]) -> tuple[str, str]:
    """A new run with files in it: where they are, and its id."""
    name = uuid.uuid4().hex
    made = server.call("POST", "/api/2.0/mlflow/experiments/create", {"name": name}).json()["experiment_id"]
    info = server.call("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": made}).json()["run"]["info"]
    place = Path(info["artifact_uri"].removeprefix("file://")) / "model"
    place.parent.mkdir(parents=True, exist_ok=True)
    fill(place)
    return str(place), str(info["run_id"])


def write_small(place: Path) -> None:
    """A model without language-model weights."""
    place.mkdir()
    (place / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    (place / "model.skops").write_bytes(b"small")

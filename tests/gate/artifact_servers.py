"""Real servers, gated and plain, and models whose files somebody tries to change through them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import requests

from mlflow_quantgov.demo.server import free_port

FILES = {"MLmodel": b"flavors: {sklearn: {}}\n", "model/weights.skops": b"as registered", "quantgov/kept.txt": b"kept"}


@dataclass(frozen=True)
class Server:
    """A running MLflow server."""

    url: str
    """With its static prefix."""
    host: str
    """Without one: where the native routes are."""
    folder: Path
    gated: bool
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(tracking_uri=self.url, registry_uri=self.url)

    def post(self, route: str, /, **body: Any) -> requests.Response:
        return requests.post(f"{self.url}/api/2.0/mlflow/{route}", json=body, timeout=60)

    def put(self, path: str, data: Any, *, api: str = "api", host: str | None = None) -> requests.Response:
        return requests.put(f"{host or self.host}/{api}/2.0/mlflow-artifacts/artifacts/{path}", data=data, timeout=60)

    def delete(self, path: str, *, api: str = "api", host: str | None = None) -> requests.Response:
        return requests.delete(f"{host or self.url}/{api}/2.0/mlflow-artifacts/artifacts/{path}", timeout=60)


@dataclass(frozen=True)
class Logged:
    """A model whose files lie on a server."""

    server: Server
    run_id: str
    model_id: str | None
    place: str
    """Its folder, below the server's destination."""
    source: str

    def register(self) -> Logged:
        name = f"m{uuid.uuid4().hex[:8]}"
        self.server.client.create_registered_model(name)
        answer = self.server.post(
            "model-versions/create", name=name, source=self.source, run_id=self.run_id, model_id=self.model_id
        )
        assert answer.ok, answer.text
        return self

    def files(self) -> dict[str, bytes]:
        root = self.server.artifacts / self.place
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def logged_model(server: Server, location: str | None = None) -> Logged:
    """A LoggedModel, as `log_model` makes it."""
    client = server.client
    experiment = client.create_experiment(f"e{uuid.uuid4().hex[:8]}", artifact_location=location)
    run = client.create_run(experiment)
    model = client.create_logged_model(experiment, name="m", source_run_id=run.info.run_id)
    place = model.artifact_location.removeprefix("mlflow-artifacts:/").removeprefix(f"file://{server.artifacts}/")
    place = place.removeprefix(f"{server.artifacts}/")
    made = Logged(server, run.info.run_id, model.model_id, place, f"models:/{model.model_id}")
    for name, data in FILES.items():
        write(server, model.artifact_location, name, data)
    client.finalize_logged_model(model.model_id, "READY")
    return made


def run_model(server: Server) -> Logged:
    """A model among the artifacts of a run, as older clients log it."""
    client = server.client
    experiment = client.create_experiment(f"e{uuid.uuid4().hex[:8]}")
    run = client.create_run(experiment)
    place = run.info.artifact_uri.removeprefix("mlflow-artifacts:/") + "/model"
    for name, data in FILES.items():
        assert server.put(f"{place}/{name}", data).ok
    return Logged(server, run.info.run_id, None, place, f"runs:/{run.info.run_id}/model")


def write(server: Server, location: str, name: str, data: bytes) -> None:
    if location.startswith("mlflow-artifacts:/"):
        answer = server.put(f"{location.removeprefix('mlflow-artifacts:/')}/{name}", data)
        assert answer.ok, answer.text
        return
    path = Path(location.removeprefix("file://")) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@contextmanager
def server(
    folder: Path,
    *options: str,
    gated: bool,
    gunicorn: bool = False,
    prefix: str = "",
    destination: str | None = None,
    environment: dict[str, str] | None = None,
    tables: Path | None = None,
) -> Iterator[Server]:
    """Run `quantgov server`, or `mlflow server` where nothing is gated, and stop it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    if tables is not None:
        shutil.copy(tables, folder / "mlflow.db")
    port = free_port()
    module = "mlflow_quantgov" if gated else "mlflow"
    command = [sys.executable, "-m", module, "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
               "--artifacts-destination", destination or str(folder / "artifacts"),
               "--host", "127.0.0.1", "--port", str(port), "--workers", "2" if gunicorn else "1", *options]  # fmt: skip
    command += ["--gunicorn-opts", "--timeout 120"] if gunicorn else []
    command += ["--static-prefix", prefix] if prefix else []
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "QUANTGOV_"))}
    variables = kept | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | (environment or {})
    host = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=variables, start_new_session=True, cwd=folder
        )
    try:
        _wait(process, f"{host}{prefix}", folder / "server.log")
        # Only uvicorn has routes of its own, which no prefix moves.
        yield Server(f"{host}{prefix}", f"{host}{prefix}" if gunicorn else host, folder, gated, environment or {})
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(15)


def _wait(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        try:
            if requests.get(f"{host}/health", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace")[-3000:])

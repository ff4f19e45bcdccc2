"""A gated MLflow server of the demo's own: a free port, everything in one folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from mlflow_quantgov.errors import UnreachableError

START_SECONDS = 300
_kept: list[socket.socket] = []


def free_port() -> int:
    """A port on the loopback interface that nobody listens on, and that nobody else is given while this process lives.

    A server takes seconds from here until it listens. A socket stays bound to the port, so that the system gives it to no
    other who asks for a free one; with `SO_REUSEADDR`, which servers set, one may listen beside a socket that does not.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    _kept.append(kept)
    return int(kept.getsockname()[1])


@contextmanager
def gated_server(folder: Path, policy: Path, database: str | None = None, *, port: int | None = None) -> Iterator[str]:
    """Run `quantgov server` with artifacts inside a folder; yields its URL and stops it afterwards.

    Args:
        folder: Folder of artifacts and log.
        policy: Policy file.
        database: URI of an empty database; None: a SQLite file in `folder`.
        port: Where it listens; None: on a free one.

    Raises:
        UnreachableError: The server did not come up; its log is named.
    """
    url = f"http://127.0.0.1:{port or free_port()}"
    log = folder / "server.log"
    command = [
        *(sys.executable, "-m", "mlflow_quantgov", "server", "--policy", str(policy)),
        *("--backend-store-uri", database or f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
        *("--host", "127.0.0.1", "--port", url.rsplit(":", 1)[1], "--workers", "1"),
    ]
    # Neither the client's addresses nor its caches may leak into the server.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
    # Two queues of background jobs, five processes: they would compete with what is timed.
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait(url, process, log)
        yield url
    finally:
        _stop(process)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/quantgov/api/status", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it printed nothing"]
    last = [line for line in lines if line.startswith("error:")] or lines[-1:]
    raise UnreachableError(
        f"The demo's server did not come up: {last[0][:300]}", why="The story needs it.", fix=f"less {log}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process group that was started here, and nothing else."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, how)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            continue

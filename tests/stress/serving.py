"""The real gated MLflow server in a child process that can be ended at any moment, and started again at once.

The parent has everything imported and the app built, but no connection open; a child is a fork of it. What a child does
is marked in memory that both share, so that whoever ends it knows how far it had come.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

READING, WRITING, RECORDED, COMMITTED = range(4)
"""Before a write; in a write transaction; its ledger row written and not committed; committed."""
PHASES = ("before anything was written", "writing, no ledger row yet", "ledger row written, not committed",
          "committed, not answered", "answered")  # fmt: skip
TIMEOUT_SECONDS = 100


class Marks:
    """Numbers that parent and child share."""

    _NAMES = ("armed", "count", "phase", "kill_at")

    def __init__(self) -> None:
        """All zero."""
        self._memory = mmap.mmap(-1, 8 * len(self._NAMES))

    def __getattr__(self, name: str) -> int:
        """One of them."""
        place = 8 * self._NAMES.index(name)
        return int(struct.unpack_from("q", self._memory, place)[0])

    def set(self, **values: int) -> None:
        """Change some."""
        for name, value in values.items():
            struct.pack_into("q", self._memory, 8 * self._NAMES.index(name), value)


def settings(database: str, folder: Path, policy: str | None = None) -> dict[str, str]:
    """What `quantgov server` tells its workers."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": f"quantgov:{database}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_TRACKING_URI": database,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "QUANTGOV_CACHE": str(folder / "cache"),
    } | ({"QUANTGOV_POLICY": policy} if policy else {})


class Server:
    """One server after another at the same address."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        """Listen, and build the app without leaving a connection open."""
        os.environ.update(environment)
        self.marks, self._log = Marks(), log
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(128)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._app: Any = None
        self._pid: int | None = None

    def prepare(self) -> None:
        """Build the app once, for all the children to come."""
        self._app = _build()
        from mlflow.server.handlers import _get_model_registry_store, _get_tracking_store

        gate = _get_model_registry_store()
        for model in gate.search_registered_models():
            for version in gate.search_model_versions(f"name='{model.name}'"):
                gate.quantgov_check(model.name, str(version.version), "@champion")  # loads what loads on first use
        for store in (gate, _get_tracking_store()):
            store.engine.dispose()
        _watch(self.marks)

    def start(self, *, anew: bool = False, armed: bool = False, bound: bool = False) -> None:
        """Start a child.

        Args:
            anew: With an app that it builds itself, which opens the store again, and not with the parent's.
            armed: Whether what it does while it starts is marked.
            bound: Whether the rights of files bind it although it is root's.
        """
        self.marks.set(armed=int(armed), count=0, phase=READING, kill_at=0)
        if threading.active_count() > 1:
            raise RuntimeError(f"a thread would be lost in the fork: {threading.enumerate()}")
        self._session = requests.Session()
        pid = os.fork()
        if pid:
            self._pid = pid
            return
        try:
            with self._log.open("ab") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if bound:
                _obey_file_modes()
            self._serve(anew)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)

    def _serve(self, anew: bool) -> None:
        import uvicorn

        if anew:
            _forget_stores()
        uvicorn.Server(uvicorn.Config(_build() if anew else self._app, log_level="critical")).run([self._socket])

    @property
    def pid(self) -> int:
        """Of the child that runs."""
        assert self._pid is not None
        return self._pid

    def kill(self) -> None:
        """SIGKILL, and wait until the child is gone."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> None:
        """Wait until the child has ended."""
        if self._pid is not None:
            os.waitpid(self._pid, 0)
            self._pid = None

    def call(self, method: str, path: str, body: dict[str, Any], actor: str = "ada") -> requests.Response:
        """Ask, on the connection that this child has accepted: one that nobody accepted would outlive it."""
        return self._session.request(method, f"{self.url}{path}", json=body, auth=(actor, "x"), timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        """End the child, and listen no more."""
        self.kill()
        self._socket.close()


class Asking:
    """A request that is under way in a thread."""

    def __init__(self, server: Server, request: tuple[str, str, dict[str, Any], str]) -> None:
        """Send it."""
        self.answer: requests.Response | None = None
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._ask, args=(server, request))
        self._thread.start()

    def _ask(self, server: Server, request: tuple[str, str, dict[str, Any], str]) -> None:
        begun = time.monotonic()
        try:
            self.answer = server.call(*request)
        except requests.RequestException:
            self.answer = None
        self.seconds = time.monotonic() - begun

    @property
    def is_over(self) -> bool:
        """Whether it was answered or lost."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait for the answer, or until the connection is lost."""
        self._thread.join()


def _build() -> Any:
    from mlflow_quantgov.pages.app import create_app

    return create_app()


def _obey_file_modes() -> None:
    """Give up CAP_DAC_OVERRIDE (bit 1), by which root writes to every file; see capset(2)."""
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()
    libc.capget(header, held)
    held[0] &= ~(1 << 1)
    libc.capset(header, held)


def _forget_stores() -> None:
    """As a process that has just begun: no store is open, and the database is asked for everything again."""
    from mlflow.server import handlers
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    handlers._tracking_store = handlers._model_registry_store = None
    for registry in (handlers._tracking_store_registry, handlers._model_registry_store_registry):
        registry._get_store_with_resolved_uri.cache_clear()
    for store in (Registry, Tracking):
        store._engine_map.clear()


def _watch(marks: Marks) -> None:
    """Mark every statement and commit, and end this process where that was asked for."""
    from sqlalchemy import Engine, event
    from sqlalchemy.orm import Session

    def step() -> None:
        if marks.armed:
            marks.set(count=marks.count + 1)
            if marks.count == marks.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    @event.listens_for(Engine, "before_cursor_execute")
    def before(_c: Any, _u: Any, statement: str, *_: Any) -> None:
        step()
        writes = statement.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN IMMEDIATE")) or "FOR UPDATE" in statement
        if marks.armed and writes and marks.phase != RECORDED:
            marks.set(phase=WRITING)

    @event.listens_for(Engine, "after_cursor_execute")
    def after(_c: Any, _u: Any, statement: str, *_: Any) -> None:
        if marks.armed and statement.startswith("INSERT INTO quantgov_ledger"):
            marks.set(phase=RECORDED)

    @event.listens_for(Engine, "commit")
    def commit(_: Any) -> None:
        step()

    @event.listens_for(Session, "after_commit")
    def committed(_: Any) -> None:
        if marks.armed:
            marks.set(phase=COMMITTED if marks.phase in {RECORDED, COMMITTED} else READING)
        step()

    @event.listens_for(Session, "after_rollback")
    def rolled_back(_: Any) -> None:
        if marks.armed and marks.phase != COMMITTED:
            marks.set(phase=READING)


@contextmanager
def serving(database: str, folder: Path, policy: str | None = None) -> Iterator[Server]:
    """A server with its app built, not yet started."""
    server = Server(settings(database, folder, policy), folder / "server.log")
    try:
        server.prepare()
        yield server
    finally:
        server.close()

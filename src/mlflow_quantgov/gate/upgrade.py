"""Bring our own tables up to date, safely where several workers start at once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

_LOCK = 0x7175616E74  # "quant": the advisory lock that PostgreSQL workers take in turn


def upgrade(engine: Engine) -> None:
    """Run the migrations that this database has not seen."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with _one_at_a_time(engine), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


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

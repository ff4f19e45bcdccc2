"""A database that is away, locked, full or in a knot: what passes is tried again, the rest is one clear line."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

Result = TypeVar("Result")
PAUSES = (0.05, 0.1, 0.3, 0.8, 2.0)
"""Seconds between attempts: a deadlock is over at once, a database that is restarted after a few seconds."""
_trying: ContextVar[bool] = ContextVar("quantgov_trying", default=False)
_LONGEST = 10.0
"""Seconds after which nothing is tried again: SQLite has waited for its lock long enough by then."""


@dataclass(frozen=True)
class _Kind:
    """What may be wrong with a database."""

    what: str
    fix: str
    passes: bool = False
    """Whether the same may work in a moment."""
    breaks_off: bool = False
    """Whether a commit that ended so may have been made."""


_BUSY = _Kind("is locked by somebody else, or changed by too many at once", "ask again", passes=True)
_AWAY = _Kind("does not answer", "start the database, then ask again", passes=True, breaks_off=True)
_CROWDED = _Kind(
    "has no connection left",
    "ask again, or start the server with a larger MLFLOW_SQLALCHEMYSTORE_POOL_SIZE",
    passes=True,
)
_READ_ONLY = _Kind("cannot be written to", "give the server the right to write to it, then ask again")
_FULL = _Kind("cannot be written to, because its disk is full or fails", "make room on it (df -h), then ask again")
_MOVED = _Kind("is no longer where it was", "put its file back, then ask again")
_BROKEN = _Kind("cannot be read", "restore it from a backup, then: quantgov audit verify")
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE = {
    "40001": _BUSY, "40P01": _BUSY, "55P03": _BUSY, "23505": _BUSY, "53300": _CROWDED, "53100": _FULL, "58030": _FULL,
    "25006": _READ_ONLY, "42501": _READ_ONLY, "08": _AWAY, "57P": _AWAY, "XX001": _BROKEN, "XX002": _BROKEN,
}  # fmt: skip
# https://www.sqlite.org/rescode.html
_BY_NAME = {
    "SQLITE_BUSY": _BUSY, "SQLITE_LOCKED": _BUSY, "SQLITE_CONSTRAINT_PRIMARYKEY": _BUSY, "SQLITE_CONSTRAINT_UNIQUE": _BUSY,
    "SQLITE_READONLY": _READ_ONLY, "SQLITE_PERM": _READ_ONLY, "SQLITE_FULL": _FULL, "SQLITE_IOERR": _FULL,
    "SQLITE_CANTOPEN": _MOVED, "SQLITE_READONLY_DBMOVED": _MOVED, "SQLITE_CORRUPT": _BROKEN, "SQLITE_NOTADB": _BROKEN,
}  # fmt: skip


class DatabaseOutage(MlflowException):
    """The database did not do what was asked; REST turns this into 503."""

    def __init__(self, kind: _Kind, *, in_doubt: bool) -> None:
        """Say what is wrong.

        Args:
            kind: What is wrong with it.
            in_doubt: Whether it broke off in the midst of a commit, so that the change may have been made.
        """
        self.reconnect = kind not in {_BUSY, _CROWDED}
        self.passes = kind.passes and not (in_doubt and kind.breaks_off)
        unknown = in_doubt and kind.breaks_off
        self.what = f"The registry's database {kind.what}"
        self.why = "it is not known whether the change was made" if unknown else "nothing was changed"
        self.fix = "quantgov audit log" if unknown else kind.fix
        super().__init__(f"{self.what}: {self.why}. Fix: {self.fix}", error_code=TEMPORARILY_UNAVAILABLE)


def outage_of(error: BaseException | None, *, in_doubt: bool = False) -> DatabaseOutage | None:
    """What an error, or what it was raised from, means; None where the database is not to blame.

    Args:
        error: What was raised.
        in_doubt: Whether that was while a change was committed.
    """
    while error is not None:
        if isinstance(error, DatabaseOutage):
            return error
        kind = _kind(error)
        if kind is not None:
            return DatabaseOutage(kind, in_doubt=in_doubt)
        error = error.__cause__
    return None


def tried_again(method: Callable[..., Result]) -> Callable[..., Result]:
    """Decorates a method of the store: an outage that passes is waited for, and the whole of it done again."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Result:
        # Only the whole transaction can be done again, and only whoever was asked first does it.
        if self._sessions.is_open or _trying.get():
            return method(self, *args, **kwargs)
        token = _trying.set(True)
        try:
            return _attempted(lambda: method(self, *args, **kwargs), self.engine)
        finally:
            _trying.reset(token)

    return call


def _attempted(ask: Callable[[], Result], engine: Engine) -> Result:
    begun = time.monotonic()
    for pause in (*PAUSES, None):
        try:
            return ask()
        except (MlflowException, SQLAlchemyError) as error:
            outage = outage_of(error)
            if outage is None:
                raise
            if outage.reconnect:  # a connection that was opened while the file was read-only would stay so
                engine.dispose()
            if pause is None or not outage.passes or time.monotonic() - begun > _LONGEST:
                raise outage from error
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  (spreads those who collided)
    raise AssertionError("the last attempt returns or raises")


def _kind(error: BaseException) -> _Kind | None:
    if isinstance(error, PoolTimeout):
        return _CROWDED
    if not isinstance(error, DBAPIError):
        return None
    origin: Any = error.orig
    state, name = getattr(origin, "sqlstate", None) or "", getattr(origin, "sqlite_errorname", None) or ""
    if state == "42501" and origin.diag.context:
        return None  # a trigger's own refusal, not a right that the server lacks
    for length in (5, 3, 2):
        if state[:length] in _BY_STATE:
            return _BY_STATE[state[:length]]
    known = max((one for one in _BY_NAME if name.startswith(one)), key=len, default=None)
    if known is not None:
        return _BY_NAME[known]
    # psycopg gives no state to a connection that it could not make, or that was cut.
    cut = error.connection_invalidated or (type(error).__name__ == "OperationalError" and not state and not name)
    return _AWAY if cut else None

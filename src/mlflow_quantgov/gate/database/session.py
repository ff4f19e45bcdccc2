"""One transaction for a decision and the change that it allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from mlflow.exceptions import MlflowException
from sqlalchemy import text
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.gate.database.outages import outage_of

LOCK_SECONDS = 20
"""For which somebody waits for another's lock on PostgreSQL before they are told; on SQLite MLflow sets the same."""


@contextmanager
def _own_errors(finished: Callable[[], bool]) -> Iterator[None]:
    """MLflow's session turns every exception into an internal error; ours come out as they went in.

    Args:
        finished: Whether everything was written, so that an error is one of the commit.
    """
    try:
        yield
    except MlflowException as error:
        if isinstance(error.__cause__, QuantgovError):
            raise error.__cause__ from None
        outage = outage_of(error, in_doubt=finished())
        if outage is not None:
            raise outage from error
        raise


SessionMaker = Callable[..., AbstractContextManager[Session]]


class JoinedSessions:
    """Wraps MLflow's session maker: inside `transaction()`, every nested call gets the same session."""

    def __init__(self, make: SessionMaker) -> None:
        """Wrap a session maker."""
        self._make = make
        self._current: ContextVar[Session | None] = ContextVar("quantgov_session", default=None)

    @property
    def is_open(self) -> bool:
        """Whether this is called from inside `transaction()`."""
        return self._current.get() is not None

    @contextmanager
    def __call__(self, *args: Any, **kwargs: Any) -> Iterator[Session]:
        """What MLflow's store calls; a nested call neither commits nor rolls back."""
        outer = self._current.get()
        if outer is not None:
            yield outer
            outer.flush()
            return
        is_finished, reads = False, kwargs.get("read_only", args[0] if args else True)
        with _own_errors(lambda: is_finished and not reads), self._make(*args, **kwargs) as session:
            yield session
            session.flush()
            is_finished = True

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One write transaction that nested calls join; SQLite takes its write lock at once."""
        is_finished = False
        with _own_errors(lambda: is_finished), self._make(read_only=False) as session:
            if session.get_bind().dialect.name == "sqlite":
                session.execute(text("BEGIN IMMEDIATE"))  # waits as long as MLflow's busy_timeout says
            else:
                session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            token = self._current.set(session)
            try:
                yield session
                session.flush()
                is_finished = True
            finally:
                self._current.reset(token)

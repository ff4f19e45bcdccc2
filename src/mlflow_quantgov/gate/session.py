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


@contextmanager
def _own_errors() -> Iterator[None]:
    """MLflow's session turns every exception into an internal error; ours come out as they went in."""
    try:
        yield
    except MlflowException as error:
        if isinstance(error.__cause__, QuantgovError):
            raise error.__cause__ from None
        raise


SessionMaker = Callable[..., AbstractContextManager[Session]]


class JoinedSessions:
    """Wraps MLflow's session maker: inside `transaction()`, every nested call gets the same session."""

    def __init__(self, make: SessionMaker) -> None:
        """Wrap a session maker."""
        self._make = make
        self._current: ContextVar[Session | None] = ContextVar("quantgov_session", default=None)

    @contextmanager
    def __call__(self, *args: Any, **kwargs: Any) -> Iterator[Session]:
        """What MLflow's store calls; a nested call neither commits nor rolls back."""
        outer = self._current.get()
        if outer is not None:
            yield outer
            outer.flush()
            return
        with _own_errors(), self._make(*args, **kwargs) as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One write transaction that nested calls join; SQLite takes its write lock at once."""
        with _own_errors(), self._make(read_only=False) as session:
            if session.get_bind().dialect.name == "sqlite":
                session.execute(text("BEGIN IMMEDIATE"))
            token = self._current.set(session)
            try:
                yield session
            finally:
                self._current.reset(token)

"""Makes `releases`, of the tests of the policy, and `hostile` importable; a gated store behind the routes of our own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from mlflow.server.security import init_security_middleware

from mlflow_quantgov.pages.api import build_api
from mlflow_quantgov.pages.views import build_views

sys.path.insert(0, str(Path(__file__).parents[1] / "policy"))
sys.path.insert(0, str(Path(__file__).parent))
from hostile import gated_store


@pytest.fixture
def store(new_sqlite_database: Callable[[], str], tmp_path: Path) -> Iterator[Any]:
    """A gated store with one model, refused once."""
    yield from gated_store(new_sqlite_database(), tmp_path)


@pytest.fixture
def app(store: Any) -> Flask:
    """Our pages and API alone."""
    app = Flask("test")
    init_security_middleware(app)
    app.register_blueprint(build_views(lambda: store))
    app.register_blueprint(build_api(lambda: store))
    return app

"""The `mlflow.app` plugin `quantgov`: MLflow's own app with our API and pages; it refuses to start on an ungated store."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.pages.mounting import guard_deletions, mount, served, stop


def create_app() -> Any:
    """Build the app that `mlflow server --app-name quantgov` serves: ASGI under uvicorn, WSGI elsewhere."""
    try:
        app = mount()
    except QuantgovError as error:
        stop(error)
    guard_deletions(app)
    return served(app)

"""The `mlflow.app` plugin: MLflow's own app with our API and pages; it refuses to start on an ungated store."""

from __future__ import annotations

import os
import sys
from typing import Any

from mlflow_quantgov.gate.registry_store import SCHEME

_REGISTRY = "_MLFLOW_SERVER_REGISTRY_STORE"
_SGI = "_MLFLOW_SGI_NAME"


def create_app() -> Any:
    """Build the app that `mlflow server --app-name quantgov` serves: ASGI under uvicorn, WSGI elsewhere."""
    registry = os.environ.get(_REGISTRY, "")
    if not registry.startswith(SCHEME):
        _refuse_to_start(registry)
    from mlflow.server import app
    from mlflow.server.handlers import _get_model_registry_store

    from mlflow_quantgov.pages.api import build_api
    from mlflow_quantgov.pages.bounded import BoundedBodies
    from mlflow_quantgov.pages.views import build_views

    if "quantgov_api" not in app.blueprints:
        # The store is opened now, so that a broken policy stops the server and not the first request.
        _get_model_registry_store()
        app.register_blueprint(build_api(_get_model_registry_store))
        app.register_blueprint(build_views(_get_model_registry_store))
    if os.environ.get(_SGI) == "uvicorn":
        from mlflow.server.fastapi_app import create_fastapi_app

        served = create_fastapi_app(app)
        served.add_middleware(BoundedBodies)
        return served
    return app


def _refuse_to_start(registry: str) -> None:
    print(
        f"error: the registry store {registry.split('@')[-1] or '(none)'} is not gated.\n"
        "With it any version could be promoted without evidence, although the pages of quantgov are shown.\n"
        "Fix: quantgov server --backend-store-uri sqlite:///mlflow.db",
        file=sys.stderr,
    )
    sys.exit(2)

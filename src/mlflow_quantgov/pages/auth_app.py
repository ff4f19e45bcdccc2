"""The `mlflow.app` plugin `quantgov-auth`: MLflow's basic-auth app in front of everything, our API and pages included."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.errors import QuantgovError, UsageError, require
from mlflow_quantgov.gate.actor import BASIC_AUTH, CUSTOM_AUTH, remember_signed_in
from mlflow_quantgov.gate.static_prefix import static_prefix
from mlflow_quantgov.pages.mounting import bounded, guard_workspaces, mount, stop
from mlflow_quantgov.pages.permissions import Permissions


def create_app() -> Any:
    """Build the app that `mlflow server --app-name quantgov-auth` serves: ASGI under uvicorn, WSGI elsewhere."""
    try:
        app = mount()
        auth = basic_auth(static_prefix())
    except QuantgovError as error:
        stop(error)
    # MLflow's app asks for the login before our hooks run, and turns away who has none.
    made = auth.create_app(app)
    _know_who_asks(app, auth)
    guard_workspaces(app)
    return bounded(made)


def basic_auth(prefix: str) -> Any:
    """MLflow's basic-auth module.

    Args:
        prefix: The server's `--static-prefix`.

    Raises:
        MissingExtraError: Its libraries are not installed.
        UsageError: This server's `--static-prefix` would take it out of the way.
    """
    require("flask_wtf", extra="auth", purpose="ask for a login")
    import mlflow.server.auth as auth

    if auth.is_unprotected_route(f"{prefix}/api/2.0/mlflow/registered-models/alias"):
        raise UsageError(
            f"--static-prefix {prefix} begins like a path that MLflow serves without a login.",
            why="Every request would be let in without one.",
            fix="choose a prefix that begins neither with /static nor with /health",
        )
    return auth


def _know_who_asks(app: Any, auth: Any) -> None:
    """Hand the user whose login was checked to the gate, and ask for permissions on our own routes."""
    from flask import g
    from mlflow.server.auth.config import DEFAULT_AUTHORIZATION_FUNCTION

    custom = auth.auth_config.authorization_function != DEFAULT_AUTHORIZATION_FUNCTION
    source = CUSTOM_AUTH if custom else BASIC_AUTH
    permissions = Permissions(app, auth)

    def signed_in() -> Any:
        user = getattr(g, "mlflow_authenticated_user", None)
        if user:
            remember_signed_in(user, source)
        return permissions.objection(user)

    app.before_request(signed_in)

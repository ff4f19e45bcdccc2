"""The `mlflow.app` plugin `quantgov-auth`: MLflow's basic-auth app in front of everything, our API and pages included."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.errors import QuantgovError, UsageError, require
from mlflow_quantgov.gate.doors.actor import BASIC_AUTH, CUSTOM_AUTH, LOGIN, remember_signed_in
from mlflow_quantgov.gate.doors.static_prefix import static_prefix
from mlflow_quantgov.pages.mounting import bounded, guard_deletions, mount, stop
from mlflow_quantgov.pages.permissions import Permissions, is_our_route


def create_app() -> Any:
    """Build the app that `mlflow server --app-name quantgov-auth` serves: ASGI under uvicorn, WSGI elsewhere."""
    try:
        app = mount()
        auth = basic_auth(static_prefix())
    except QuantgovError as error:
        stop(error)
    source = CUSTOM_AUTH if _is_custom(auth) else BASIC_AUTH
    app.config[LOGIN] = source
    # First ours: MLflow turns everybody but administrators away from routes that it has no rule for.
    _serve_our_own(app, auth, source)
    made = auth.create_app(app)
    _know_who_asks(app, source)
    guard_deletions(app)
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


def _is_custom(auth: Any) -> bool:
    """Whether somebody else than MLflow says who is let in."""
    from mlflow.server.auth.config import DEFAULT_AUTHORIZATION_FUNCTION

    return bool(auth.auth_config.authorization_function != DEFAULT_AUTHORIZATION_FUNCTION)


def _serve_our_own(app: Any, auth: Any, source: str) -> None:
    """Ask for the login and for MLflow's permissions on our own routes, and serve them."""
    from flask import Response, request

    permissions = Permissions(app, auth)

    def ours() -> Any:
        if not is_our_route(request.endpoint):
            return None
        # An answer from here ends the request before the blueprint's own hooks are asked: those turn other sites away.
        for hook in (one for name in request.blueprints for one in app.before_request_funcs.get(name, ())):
            turned_away = app.ensure_sync(hook)()
            if turned_away is not None:
                return turned_away
        who = auth.authenticate_request()
        if isinstance(who, Response):
            return who
        user = getattr(who, "username", None)
        if not user:
            return auth.make_basic_auth_response()
        remember_signed_in(user, source)
        objection = permissions.objection(user)
        if objection is not None:
            return objection
        if request.method == "OPTIONS":
            return app.make_default_options_response()
        return app.ensure_sync(app.view_functions[request.endpoint])(**(request.view_args or {}))

    app.before_request(ours)


def _know_who_asks(app: Any, source: str) -> None:
    """Hand the user whom MLflow's hook has let in to the gate."""
    from flask import g

    def signed_in() -> None:
        user = getattr(g, "mlflow_authenticated_user", None)
        if user:
            remember_signed_in(user, source)

    app.before_request(signed_in)

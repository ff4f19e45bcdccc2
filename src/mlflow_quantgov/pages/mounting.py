"""Our API and pages on MLflow's own app; nothing is mounted where the registry is not gated."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from typing import Any, NoReturn

from mlflow_quantgov.errors import QuantgovError, UnreachableError
from mlflow_quantgov.gate.doors.static_prefix import static_prefix
from mlflow_quantgov.gate.doors.supported import UnsupportedMlflowError, check_mlflow, check_server_settings
from mlflow_quantgov.gate.registry_store import SCHEME

_REGISTRY = "_MLFLOW_SERVER_REGISTRY_STORE"
_SGI = "_MLFLOW_SGI_NAME"
_GUNICORN_HALTS = 4
"""Exit code of a worker after which gunicorn starts no other (its `APP_LOAD_ERROR`)."""
BELOW_PREFIX = "_below_prefix"
"""How the second mounting of a blueprint is called, where the server has a `--static-prefix`."""


class UngatedRegistryError(UnreachableError):
    """This server was started on a registry that is not gated: no worker of it can ever serve."""


def mount() -> Any:
    """Mount API and pages on MLflow's Flask app, and give that app.

    Raises:
        UngatedRegistryError: The registry store is not gated.
        UnsupportedMlflowError: The gate does not stand in this MLflow, or clients can run code on this server.
        PolicyError: The policy or the trusted keys are wrong.
    """
    registry = os.environ.get(_REGISTRY, "")
    if not registry.startswith(SCHEME):
        raise UngatedRegistryError(
            f"The registry store {registry.split('@')[-1] or '(none)'} is not gated.",
            why="With it any version could be promoted without evidence, although the pages of quantgov are shown.",
            fix="quantgov server --backend-store-uri sqlite:///mlflow.db",
        )
    check_mlflow()
    check_server_settings()
    from mlflow.server import app, handlers

    from mlflow_quantgov.gate.write_once.artifact_repo import guard_repositories
    from mlflow_quantgov.gate.write_once.write_guard import WriteGuard
    from mlflow_quantgov.pages.api import build_api
    from mlflow_quantgov.pages.views import build_views

    # The store that MLflow's own handlers ask; there is no public name for it.
    store = getattr(handlers, "_get_model_registry_store", None)
    # It is opened now, so that a broken policy stops the server and not the first request.
    if store is None or not hasattr(store(), "quantgov_policy"):
        raise UnsupportedMlflowError(
            "The handlers of this MLflow ask another registry store than the gated one.",
            why="The gate would stand in front of nothing.",
            fix="quantgov doctor",
        )
    guard_repositories(WriteGuard(store().engine))
    for blueprint in (build_api(store), build_views(store)):
        if blueprint.name not in app.blueprints:
            register(app, blueprint)
    return app


def register(app: Any, blueprint: Any) -> None:
    """Mount routes of ours; below the server's `--static-prefix` too, where it has one."""
    app.register_blueprint(blueprint)
    if prefix := static_prefix():
        # Clients know the server by its prefixed address; links in old descriptions go without.
        name, below = f"{blueprint.name}{BELOW_PREFIX}", f"{prefix}{blueprint.url_prefix}"
        app.register_blueprint(blueprint, name=name, url_prefix=below)


def served(app: Any) -> Any:
    """The app as the server at hand takes it: ASGI under uvicorn, WSGI elsewhere."""
    if os.environ.get(_SGI) == "uvicorn":
        from mlflow.server.fastapi_app import create_fastapi_app

        return bounded(create_fastapi_app(app))
    return app


def bounded(app: Any) -> Any:
    """An ASGI app that reads no more of a request to us than a route of ours takes; a WSGI app as it is, which reads by itself."""
    from mlflow_quantgov.pages.bounded import BoundedBodies

    if hasattr(app, "add_middleware"):
        app.add_middleware(BoundedBodies)
    return app


def guard_deletions(app: Any) -> None:
    """Refuse what MLflow would delete past the registry's store."""
    _guard_workspaces(app)
    _guard_logged_models(app)


def _guard_workspaces(app: Any) -> None:
    """Refuse the deletion of a workspace in which a gated pointer stands: MLflow does that past the registry's store."""
    from flask import request
    from mlflow.server import handlers

    def not_with_gated_pointers() -> None:
        name = (request.view_args or {}).get("workspace_name")
        store: Any = handlers._get_model_registry_store()
        if request.method == "DELETE" and name and store.supports_workspaces:
            store.quantgov_guard_workspace(name)

    app.before_request(handlers.catch_mlflow_exception(not_with_gated_pointers))


def _guard_logged_models(app: Any) -> None:
    """Refuse the deletion of a LoggedModel from which a version was registered: the tracking store does not know of those."""
    from flask import request
    from mlflow.server import handlers

    def not_of_registered_versions() -> None:
        rule, given = str(request.url_rule), request.view_args or {}
        # Its tags are deleted by a longer route.
        if request.method != "DELETE" or "/mlflow/logged-models/" not in rule or set(given) != {"model_id"}:
            return
        # 404 where there is none in this workspace, as MLflow itself answers.
        model = handlers._get_tracking_store().get_logged_model(given["model_id"])
        store: Any = handlers._get_model_registry_store()
        store.quantgov_guard_logged_model(model)

    app.before_request(handlers.catch_mlflow_exception(not_of_registered_versions))


def stop(error: QuantgovError) -> NoReturn:
    """End this process with the reason on one line; a server must not come up without its gate."""
    print(f"error: {error.one_line()}", file=sys.stderr, flush=True)
    # A policy may be mended while other workers serve; a registry without a gate stays so, and whoever watches over the
    # workers would start this one again without end.
    if isinstance(error, UngatedRegistryError):
        if os.environ.get(_SGI) == "gunicorn":
            sys.exit(_GUNICORN_HALTS)
        if (watcher := multiprocessing.parent_process()) is not None and watcher.pid is not None:
            os.kill(watcher.pid, signal.SIGTERM)
    sys.exit(error.exit_code)

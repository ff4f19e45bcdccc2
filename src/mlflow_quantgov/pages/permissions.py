"""Who may do what under /quantgov/ where MLflow's basic-auth app stands in front.

What a user may do with a registered model is asked of MLflow; promotion itself goes through MLflow's routes and is
permitted there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from flask import Response, g, jsonify, request
from mlflow.utils.workspace_context import ServerWorkspaceContext

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.gate.database import workspaces
from mlflow_quantgov.pages.mounting import BELOW_PREFIX
from mlflow_quantgov.pages.reading import read_body

Need = Literal["anybody", "read", "update", "administrator"]

NEEDS: dict[str, Need] = {
    # Says nothing of a model, or leaves out what this user may not see (`may_see`).
    "quantgov_api.document": "anybody",
    "quantgov_api.status": "anybody",
    "quantgov_api.policy": "anybody",
    "quantgov_api.keys": "anybody",
    "quantgov_api.triggers": "anybody",
    "quantgov_api.rows": "anybody",
    "quantgov_api.verify": "anybody",
    "quantgov_api.pointers": "anybody",
    "quantgov_views.index": "anybody",
    "quantgov_views.ledger": "anybody",
    "quantgov_views.pointers": "anybody",
    # About one model.
    "quantgov_api.check": "read",
    "quantgov_api.standing": "read",
    "quantgov_api.recheck": "read",
    "quantgov_api.decision": "read",
    "quantgov_api.record": "read",
    "quantgov_views.model": "read",
    "quantgov_views.version": "read",
    "quantgov_views.decision": "read",
    # Adds to what is known of one model.
    "quantgov_api.statements": "update",
    "quantgov_api.draws": "update",
    # Everything about every model, whole.
    "quantgov_api.export": "administrator",
    # Who else reaches the database.
    "quantgov_api.deployment": "administrator",
}
"""What each of our routes asks of who is signed in; a route that is not named here is for administrators."""

_VISIBLE = "quantgov_visible"


class Permissions:
    """Asks MLflow's basic-auth app."""

    def __init__(self, app: Any, auth: Any) -> None:
        """Keep MLflow's Flask app and its auth module."""
        self._app, self._auth = app, auth

    def objection(self, user: str) -> tuple[Response, int] | None:
        """What to answer instead of serving this request of ours to a user; None where nothing speaks against it."""
        if self._auth.store.get_user(user).is_admin:
            return None
        setattr(g, _VISIBLE, _remembering(lambda model: self._allows(user, model, "read")))
        need = NEEDS.get((request.endpoint or "").replace(BELOW_PREFIX, ""))
        if need is None or need == "administrator":
            return _forbidden("This is for administrators of this server.", "ask an administrator")
        if need == "anybody":
            return None
        model = _model_of_request()
        if model is None:
            return None  # the route itself says what is missing
        if self._allows(user, model, need):
            return None
        return _forbidden(
            f"{user!r} may not {need} the registered model {model.name!r}.",
            f"ask for the permission {'READ' if need == 'read' else 'EDIT'} on it",
        )

    def _allows(self, user: str, model: _Model, need: Need) -> bool:
        """MLflow's own answer for a user and a registered model, in the workspace in which that lies."""
        from mlflow.server.auth.permissions import get_permission

        if not workspaces.enabled() and model.workspace != workspaces.DEFAULT:
            return False  # written while there were workspaces: nobody can say any more who may read it
        # The inner request takes its workspace with it when it ends; ours stays.
        with ServerWorkspaceContext(model.workspace if workspaces.enabled() else None):
            asked = {"username": user, "resource_type": _resource_type(model.name), "resource_id": model.name}
            with self._app.test_request_context(query_string=asked):
                answer = self._auth.get_user_permission()
        if answer.status_code != 200:
            return False
        permission = get_permission(str(answer.get_json(force=True)["permission"]))
        return bool(permission.can_read if need == "read" else permission.can_update)


def is_our_route(endpoint: str | None) -> bool:
    """Whether a route is one of ours."""
    return (endpoint or "").startswith("quantgov_")


def may_see(name: str | None, workspace: str | None = None) -> bool:
    """Whether what is about a model may be shown to who asks; everything is, where nobody has to sign in.

    Args:
        name: The registered model; None where it is about none.
        workspace: Where that lies; None: in the workspace of the request.
    """
    may_read: Callable[[_Model], bool] | None = g.get(_VISIBLE)
    return may_read is None or name is None or may_read(_model(name, workspace))


class _Model(NamedTuple):
    name: str
    workspace: str


def _model(name: str, workspace: str | None = None) -> _Model:
    return _Model(name, workspace or workspaces.current())


def _remembering(ask: Callable[[_Model], bool]) -> Callable[[_Model], bool]:
    """The same question is asked once for each request."""
    known: dict[_Model, bool] = {}

    def answer(model: _Model) -> bool:
        if model not in known:
            known[model] = ask(model)
        return known[model]

    return answer


def _store() -> Any:
    from mlflow.server.handlers import _get_model_registry_store

    return _get_model_registry_store()


def _resource_type(name: str) -> str:
    """What MLflow's permissions call a registered model, which may be a prompt."""
    from mlflow.exceptions import MlflowException

    try:
        tags = dict(_store().get_registered_model(name).tags or {})
    except MlflowException:
        return "registered_model"
    return "prompt" if str(tags.get("mlflow.prompt.is_prompt", "")).lower() == "true" else "registered_model"


def _model_of_request() -> _Model | None:
    """The registered model that a request is about."""
    views = request.view_args or {}
    if "decision_id" in views:
        row = _store().quantgov_row(views["decision_id"])
        return None if row is None or row["model"] is None else _model(row["model"], row["workspace"])
    if "name" in views:
        return _model(str(views["name"]))
    try:
        # Read once, as the route will read it: bounded, and with no key that stands twice.
        name = read_body().get("name")
    except QuantgovError:
        return None
    return _model(name) if isinstance(name, str) else None


def _forbidden(what: str, fix: str) -> tuple[Response, int]:
    return jsonify(error={"message": what, "why": "MLflow's permissions hold here too.", "fix": fix}), 403

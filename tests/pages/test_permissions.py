"""Every one of our routes says what it asks of who is signed in; one that does not is for administrators alone."""

from __future__ import annotations

import pytest
from flask import Flask

from mlflow_quantgov.pages.api import build_api
from mlflow_quantgov.pages.permissions import NEEDS, Permissions, _Model
from mlflow_quantgov.pages.views import build_views


def test_every_route_is_listed() -> None:
    app = Flask(__name__)
    app.register_blueprint(build_api(lambda: None))
    app.register_blueprint(build_views(lambda: None))
    ours = {rule.endpoint for rule in app.url_map.iter_rules() if rule.endpoint.startswith("quantgov_")}
    assert ours == set(NEEDS)


def test_what_is_sent_about_a_model_needs_more_than_reading() -> None:
    assert {name for name, need in NEEDS.items() if need == "update"} == {
        "quantgov_api.statements",
        "quantgov_api.draws",
    }


def test_a_model_of_a_workspace_is_nobodys_once_workspaces_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name would be taken for that of the default workspace's model, and MLflow would be asked about that one."""
    monkeypatch.delenv("MLFLOW_ENABLE_WORKSPACES", raising=False)
    nobody_to_ask = Permissions(None, None)
    assert not nobody_to_ask._allows("ada", _Model("chat", "team-a"), "read")

"""With `--static-prefix` our routes stand in two places, and are as careful in both."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mlflow_quantgov.gate.doors.static_prefix import STATIC_PREFIX
from mlflow_quantgov.pages.api import build_api
from mlflow_quantgov.pages.mounting import register
from mlflow_quantgov.pages.openapi import contracts
from mlflow_quantgov.pages.reading import MAX_BODY, most_bytes
from mlflow_quantgov.pages.views import build_views


@pytest.fixture
def app(store: Any, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Our routes on a server that is reached below `/team`."""
    monkeypatch.setenv(STATIC_PREFIX, "/team")
    made = Flask("test")
    for blueprint in (build_views(lambda: store), build_api(lambda: store)):
        register(made, blueprint)
    return made


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize("root", ["", "/team"])
def test_pages_and_errors_are_the_same_in_both_places(browser: FlaskClient, root: str) -> None:
    page = browser.get(f"{root}/quantgov/pointers")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert 'href="/team/quantgov/' in page.text and 'href="/quantgov' not in page.text
    assert browser.get(f"{root}/quantgov/api/nothing").get_json()["error"]["fix"]
    assert browser.post(f"{root}/quantgov/api/check", data="{}").status_code == 415
    large = browser.post(f"{root}/quantgov/api/check", data=b" " * (MAX_BODY + 1), content_type="application/json")
    assert large.status_code == 413
    lost = browser.get(f"{root}/quantgov/nothing")
    assert lost.status_code == 404 and "There is no such page" in lost.text
    assert most_bytes(f"{root}/quantgov/api/statements") > MAX_BODY


def test_each_route_stands_once_in_the_document(app: Flask) -> None:
    assert contracts(app) and not [path for path, _ in contracts(app) if path.startswith("/team")]


def test_what_only_begins_like_the_prefix_is_not_below_it(browser: FlaskClient) -> None:
    assert "Content-Security-Policy" not in browser.get("/teamquantgov/").headers

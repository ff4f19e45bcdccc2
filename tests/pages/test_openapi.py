"""The API against its own OpenAPI document: requests that fit it and requests that do not, and no answer that is a defect."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from asking import ask
from flask import Flask

from mlflow_quantgov.pages.openapi import contracts, openapi


def test_every_route_has_a_contract_and_stands_in_the_document(app: Flask) -> None:
    found = contracts(app)
    assert [key for key, one in found.items() if one is None] == []
    document = app.test_client().get("/quantgov/api/openapi.json").get_json()
    assert {(path, method) for path, of in document["paths"].items() for method in of} == set(found)


@pytest.mark.slow
def test_no_request_made_from_the_document_breaks_the_api(app: Flask, store: Any) -> None:
    with app.app_context():
        schema = schemathesis.openapi.from_wsgi("/quantgov/api/openapi.json", app)
        assert ask(schema, 15) > 150
    assert openapi(app)["openapi"].startswith("3.1")

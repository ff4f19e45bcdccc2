"""The API against its own OpenAPI document: requests that fit it and requests that do not, and no answer that is a defect."""

from __future__ import annotations

from typing import Any

import hypothesis
import schemathesis
from flask import Flask
from hypothesis import HealthCheck
from schemathesis import checks
from schemathesis.generation import GenerationMode

from mlflow_quantgov.pages.openapi import contracts, openapi

CHECKS = [
    checks.not_a_server_error,
    *(
        check
        for check in checks.CHECKS.get_all()
        if check.__name__
        in {
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
            "negative_data_rejection",
            "unsupported_method",
        }
    ),
]


def ask(schema: Any, examples: int) -> int:
    """Ask every route by requests that fit and that do not; returns how many were sent."""
    asked = 0

    for found in schema.get_all_operations():
        operation = found.ok()
        takes_anything = any((operation.body, operation.query, operation.path_parameters))
        for mode in GenerationMode if takes_anything else (GenerationMode.POSITIVE,):

            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            @hypothesis.settings(
                max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            def one(case: Any) -> None:
                nonlocal asked
                asked += 1
                answer = case.call()
                case.validate_response(answer, checks=CHECKS)
                assert answer.status_code < 500
                if answer.status_code >= 400:
                    problem = answer.json()["error"]
                    assert problem["message"] and problem["why"] and problem["fix"], problem

            one()
    return asked


def test_every_route_has_a_contract_and_stands_in_the_document(app: Flask) -> None:
    found = contracts(app)
    assert [key for key, one in found.items() if one is None] == []
    document = app.test_client().get("/quantgov/api/openapi.json").get_json()
    assert {(path, method) for path, of in document["paths"].items() for method in of} == set(found)


def test_no_request_made_from_the_document_breaks_the_api(app: Flask, store: Any) -> None:
    with app.app_context():
        schema = schemathesis.openapi.from_wsgi("/quantgov/api/openapi.json", app)
        assert ask(schema, 15) > 150
    assert openapi(app)["openapi"].startswith("3.1")

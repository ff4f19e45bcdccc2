"""Asks every route of an OpenAPI document by requests that fit it and by requests that do not."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import hypothesis
from hypothesis import HealthCheck
from schemathesis import checks
from schemathesis.generation import GenerationMode

_NAMES = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
}
_TOO_LARGE = 413
"""A refusal as well, which schemathesis does not count among them."""
_LONGEST_ADDRESS = 60_000
"""Bytes; uvicorn hangs up on a longer head of a request (64 KB) before any app is asked."""


def _checks() -> list[Any]:
    """Asked for late: schemathesis registers those of OpenAPI when the first document is read."""
    found = [one for one in checks.CHECKS.get_all() if one.__name__ in _NAMES]
    assert {one.__name__ for one in found} == _NAMES
    return found


def _address(case: Any) -> str:
    return quote(case.formatted_path) + urlencode(case.query or {}, doseq=True)


def ask(schema: Any, examples: int) -> int:
    """Ask every route by requests that fit and that do not; returns how many were sent."""
    asked, wanted = 0, _checks()

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
                hypothesis.assume(len(_address(case)) < _LONGEST_ADDRESS)
                asked += 1
                answer = case.call()
                refused = answer.status_code == _TOO_LARGE
                fitting = [one for one in wanted if not (refused and one.__name__ == "negative_data_rejection")]
                case.validate_response(answer, checks=fitting)
                assert answer.status_code < 500
                if answer.status_code >= 400:
                    problem = answer.json()["error"]
                    assert problem["message"] and problem["why"] and problem["fix"], problem

            one()
    return asked

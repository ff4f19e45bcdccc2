"""How our routes say what went wrong: the API in JSON, the pages as pages with a way back; what nobody routes as well."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, jsonify, request
from mlflow.exceptions import MlflowException
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import RequestRedirect

from mlflow_quantgov.errors import QuantgovError, UnreachableError, one_line
from mlflow_quantgov.gate.database.outages import outage_of
from mlflow_quantgov.gate.doors.refusals import said_and_fix
from mlflow_quantgov.pages.contract import is_number, is_storable
from mlflow_quantgov.pages.headers import is_ours, secure
from mlflow_quantgov.pages.reading import RefusedRequestError, is_api

_LONGEST = 500
_UNKNOWN = "There is no such page."


def answer_in_json(api: Blueprint) -> None:
    """Make a blueprint, and every address of the API that it has no route for, answer errors in JSON."""

    @api.errorhandler(Exception)
    def _failed(error: Exception) -> Response:
        return _json(error)

    @api.before_app_request
    def _unrouted() -> Response | None:
        error = request.routing_exception
        return _json(error) if error is not None and is_api(request.path) else None


def answer_in_pages(views: Blueprint, page: Callable[..., str]) -> None:
    """Make a blueprint, and every address under /quantgov/ that it has no route for, answer errors as pages.

    Args:
        views: The blueprint.
        page: Renders a template.
    """

    def shown(error: Exception) -> Response:
        status, problem = described(error)
        text = page("message.html", heading="Not found" if status == 404 else "This cannot be shown", **problem)
        return _with_allowed(Response(text, status, mimetype="text/html"), error)

    @views.errorhandler(Exception)
    def _failed(error: Exception) -> Response:
        return shown(error)

    @views.before_app_request
    def _unrouted() -> Response | None:
        error = request.routing_exception
        if error is None or not is_ours(request.path) or is_api(request.path):
            return None
        if isinstance(error, RequestRedirect):
            # Relative: what a request says of the host's name leads nobody anywhere.
            there = urlsplit(error.new_url)
            query = f"?{there.query}" if there.query else ""
            return Response(status=error.code, headers={"Location": there.path + query})
        return shown(error)

    @views.url_value_preprocessor
    def _nameable(_: str | None, values: dict[str, Any] | None) -> None:
        given = values or {}
        if not all(map(is_storable, given.values())) or not is_number(given.get("version", "1")):
            raise NotFound("No model and no version is called that.")

    views.after_app_request(secure)


def _json(error: Exception) -> Response:
    status, problem = described(error)
    answer = jsonify(error=problem)
    answer.status_code = status
    return _with_allowed(answer, error)


def _with_allowed(answer: Response, error: Exception) -> Response:
    if methods := getattr(error, "valid_methods", None):
        answer.headers["Allow"] = ", ".join(sorted(methods))
    return answer


def described(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status, and `message`, `why` and `fix`, of whatever a route raised."""
    if isinstance(error, QuantgovError):
        status = (
            error.status
            if isinstance(error, RefusedRequestError)
            else 503
            if isinstance(error, UnreachableError)
            else 400
        )
        return status, error.to_dict() | {"exit_code": error.exit_code}
    if (outage := outage_of(error)) is not None:
        current_app.logger.error("quantgov: %s", outage.message)
        return 503, _problem(f"{outage.what}.", f"{outage.why[:1].upper()}{outage.why[1:]}.", outage.fix)
    if isinstance(error, MlflowException):
        status, message = error.get_http_status_code(), one_line(str(error.message))[:_LONGEST]
        if status == HTTPStatus.FORBIDDEN:
            said, fix = said_and_fix(message)
            return status, _problem(said, "Nothing was changed.", fix or "quantgov doctor")
        if status < 500:
            return status, _problem(message, "Nothing is known of it here.", "look for it among the models: /quantgov/")
        # MLflow reports a database that does not answer in the same way as a defect.
        current_app.logger.error("quantgov: %s", message)
        return 503, _problem("The registry does not answer.", "Nothing was changed.", "quantgov doctor")
    if isinstance(error, HTTPException):
        unrouted = error.code == 404 and error.description == NotFound.description
        message = _UNKNOWN if unrouted else one_line(error.description or "")[:_LONGEST]
        fix = "open /quantgov/; /quantgov/api/openapi.json lists what programs may ask"
        return error.code or 500, _problem(message or error.name, "Nothing was done.", fix)
    current_app.logger.exception("quantgov: a request failed")
    message = f"Unexpected {type(error).__name__}."
    return 500, _problem(message, "This is a defect of mlflow-quantgov; nothing was decided.", "read the server's log")


def _problem(message: str, why: str, fix: str) -> dict[str, str]:
    return {"message": message, "why": why, "fix": fix}

"""Read a request that anybody may have sent: of a known type, from here, within bounds, and strictly."""

from __future__ import annotations

from typing import Any, TypeVar

from flask import g, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from mlflow_quantgov.errors import EvidenceError, QuantgovError, UsageError, short
from mlflow_quantgov.evidence.statement import MAX_STATEMENT_BYTES, strict_json
from mlflow_quantgov.gate.doors.static_prefix import below

API = "/quantgov/api/"
STATEMENTS = f"{API}statements"
MAX_STATEMENT_BODY = 2 * MAX_STATEMENT_BYTES
"""Bytes; inside JSON the quotes of a statement take two."""
MAX_BODY = 64 * 1024
"""Bytes of any other request."""
_JSON = "application/json"
Model = TypeVar("Model", bound=BaseModel)


class RefusedRequestError(UsageError):
    """A request that is not looked at further, with the HTTP status that says why."""

    def __init__(self, status: int, what: str, *, why: str, fix: str) -> None:
        """Keep the status beside the message."""
        super().__init__(what, why=why, fix=fix)
        self.status = status


def most_bytes(path: str) -> int:
    """How long the body of a request may be."""
    return MAX_STATEMENT_BODY if below(path).rstrip("/") == STATEMENTS else MAX_BODY


def is_api(path: str) -> bool:
    """Whether a path is one of the API, with the server's own prefix or without."""
    return below(path).startswith(API)


def too_large(most: int) -> RefusedRequestError:
    """The error for a body of more bytes than are read."""
    what, why = "The request is too large.", f"At most {most:,} bytes are read here."
    return RefusedRequestError(413, what, why=why, fix="evaluate fewer items per statement")


def refuse_other_sites() -> None:
    """Refuse what a page of another site made a browser send; MLflow's own check covers its own routes alone.

    Raises:
        RefusedRequestError: It comes from another site (403).
    """
    from mlflow.server.security_utils import get_allowed_origins_from_env, should_block_cors_request

    origin = request.headers.get("Origin")
    same = origin is not None and origin == request.host_url.rstrip("/")
    if not same and should_block_cors_request(origin or "", request.method, get_allowed_origins_from_env()):
        raise RefusedRequestError(
            403,
            "The request comes from a page of another site.",
            why="A browser sends the passwords of whoever looks at that page along with it.",
            fix="ask from this server's own pages, or start it with --cors-allowed-origins ORIGIN",
        )


def read_body() -> dict[str, Any]:
    """The JSON object of a request; read once.

    Raises:
        RefusedRequestError: Another type (415) or too large (413).
        UsageError: Not JSON, not UTF-8, or no object.
    """
    if "quantgov_body" not in g:
        g.quantgov_body = _read_body()
    found: dict[str, Any] = g.quantgov_body
    return found


def _read_body() -> dict[str, Any]:
    if request.mimetype != _JSON or request.headers.get("Content-Encoding", "identity") != "identity":
        raise RefusedRequestError(
            415,
            f"The request is not plain {_JSON}.",
            why="Nothing else is read: forms of other sites and packed bodies are not looked into.",
            fix=f"send JSON with the header Content-Type: {_JSON}, and no Content-Encoding",
        )
    most = most_bytes(request.path)
    # Checked while it is read: a body in chunks names no length. It is cut there without a word, so one byte more is asked for.
    request.max_content_length = most + 1
    try:
        data = request.get_data(cache=False)
        if len(data) > most:
            raise RequestEntityTooLarge
    except RequestEntityTooLarge as error:
        raise too_large(most) from error
    try:
        found = strict_json(data, where="The request")
    except EvidenceError as error:
        raise UsageError(
            f"The request is not JSON that can be read: {error.what.partition(': ')[2]}",
            why="It has to say what it is about.",
            fix="send one JSON object",
        ) from error
    if not isinstance(found, dict):
        raise UsageError("The request holds no JSON object.", why="It has to name what it is about.", fix="send JSON")
    return found


def read_query() -> dict[str, str]:
    """What stands behind the question mark; of a name that stands twice, the first."""
    return {name: values[0] for name, values in request.args.lists()}


def validated(model: type[Model], value: Any, where: str, *, strict: bool = True) -> Model:
    """Check what was sent against what a route takes.

    Raises:
        UsageError: The first problem, by name.
    """
    try:
        return model.model_validate(value, strict=strict)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(model.model_fields)
        raise _bad_field(short(place, 60), where, str(problem["msg"]), known) from error


def _bad_field(place: str, where: str, problem: str, known: str) -> QuantgovError:
    return UsageError(f"{place} in the {where} is wrong: {problem}.", why="Nothing was done.", fix=f"send {known}")

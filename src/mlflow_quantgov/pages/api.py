"""The JSON API under /quantgov/api/."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request
from mlflow.exceptions import MlflowException

from mlflow_quantgov.errors import QuantgovError, UsageError
from mlflow_quantgov.evidence.statement import MAX_STATEMENT_BYTES
from mlflow_quantgov.gate.answers import keys_status, policy_status, taken_in
from mlflow_quantgov.pages.permissions import visible
from mlflow_quantgov.version import __version__

MAX_ROWS = 10_000
MOST_DIGITS = 10


def build_api(store: Callable[[], Any]) -> Blueprint:
    """The blueprint; `store` returns the gated store of this process."""
    api = Blueprint("quantgov_api", __name__, url_prefix="/quantgov/api")

    @api.errorhandler(QuantgovError)
    def _known(error: QuantgovError) -> tuple[Response, int]:
        return jsonify(error=error.to_dict() | {"exit_code": error.exit_code}), 400

    @api.errorhandler(MlflowException)
    def _mlflow(error: MlflowException) -> tuple[Response, int]:
        return jsonify(error={"message": str(error.message), "why": "", "fix": ""}), error.get_http_status_code()

    @api.get("/status")
    def status() -> Response:
        policy = store().quantgov_policy()
        described = policy_status(policy)
        keys = keys_status(policy, store().quantgov_keys())
        return jsonify(gated=True, version=__version__, policy=described, keys=keys, store=store().engine.dialect.name)

    @api.get("/policy")
    def policy() -> Response:
        found = store().quantgov_policy()
        return jsonify(name=found.name, digest=found.digest, text=found.text)

    @api.get("/keys")
    def keys() -> Response:
        found = store().quantgov_keys()
        return jsonify(digest=found.digest, text=found.to_text())

    @api.post("/statements")
    def statements() -> Response:
        if (request.content_length or 0) > 2 * MAX_STATEMENT_BYTES:
            raise UsageError("The request is too large.", why="At most 64 MB are taken in.", fix="evaluate fewer items")
        name, version, statement = _fields("name", "version", "statement")
        return jsonify(taken_in(store().quantgov_take_in(name, version, statement.encode())))

    @api.post("/draws")
    def draws() -> Response:
        name, version = _fields("name", "version")
        wanted = request.get_json().get("statement")
        return jsonify(store().quantgov_draw(name, version, wanted if isinstance(wanted, str) else None))

    @api.post("/check")
    def check() -> Response:
        return jsonify(store().quantgov_check(*_fields("name", "version", "to")).to_dict())

    @api.get("/pointers")
    def pointers() -> Response:
        found = store().quantgov_pointers(request.args.get("model"))
        return jsonify(pointers=[one for one in found if visible(one["model"])])

    @api.post("/standing")
    def standing() -> Response:
        return jsonify(store().quantgov_standing(*_fields("name", "version", "to")))

    @api.post("/recheck")
    def recheck() -> Response:
        return jsonify(store().quantgov_recheck(*_fields("name", "version", "to")))

    @api.get("/decisions/<decision_id>")
    def decision(decision_id: str) -> tuple[Response, int] | Response:
        found = store().quantgov_decision(decision_id)
        if found is None:
            missing = UsageError("There is no such decision.", fix="quantgov audit log")
            return jsonify(error=missing.to_dict()), 404
        return jsonify(found)

    @api.get("/ledger")
    def rows() -> Response:
        limit = request.args.get("limit", "100")
        if not limit.isdigit():
            raise UsageError("`limit` is not a number.", why="It says how many rows to return.", fix="limit=100")
        found = store().quantgov_ledger(request.args.get("model"), min(int(limit), MAX_ROWS))
        return jsonify(rows=[row for row in found if visible(row["model"])])

    @api.get("/ledger/verify")
    def verify() -> Response:
        numbers = [one for one in request.args.get("rows", "").split(",") if one]
        if len(numbers) > MAX_ROWS or not all(one.isdecimal() and len(one) < MOST_DIGITS for one in numbers):
            raise UsageError("`rows` is no list of numbers.", why="It names rows of the ledger.", fix="rows=1,20")
        return jsonify(asdict(store().quantgov_verify([int(one) for one in numbers])))

    @api.get("/ledger/export")
    def export() -> Response:
        def lines() -> Iterator[str]:
            count = 0
            for row in exported:
                count += 1
                yield json.dumps(row, ensure_ascii=False) + "\n"
            yield json.dumps({"rows": count}) + "\n"  # so that whoever reads knows that nothing is missing

        exported = store().quantgov_export()
        return Response(lines(), mimetype="application/x-ndjson")

    @api.get("/decisions/<decision_id>/record")
    def record(decision_id: str) -> Response:
        return jsonify(store().quantgov_record(decision_id))

    @api.get("/triggers")
    def triggers() -> Response:
        return jsonify(store().quantgov_triggers().to_dict())

    return api


def _fields(*names: str) -> list[str]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise UsageError("The request holds no JSON object.", why="It has to name what it is about.", fix="send JSON")
    missing = [name for name in names if not isinstance(body.get(name), str) or not body[name]]
    if missing:
        raise UsageError(f"The request lacks {missing[0]!r}.", why="It must be a text.", fix=f"send {', '.join(names)}")
    return [body[name] for name in names]

"""The JSON API under /quantgov/api/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.gate.client import keys_status, taken_in
from mlflow_quantgov.pages import contract
from mlflow_quantgov.pages.contract import route_contract
from mlflow_quantgov.pages.openapi import API_BLUEPRINT, openapi
from mlflow_quantgov.pages.problems import answer_in_json
from mlflow_quantgov.pages.reading import read_body, refuse_other_sites
from mlflow_quantgov.version import __version__

MAX_ROWS = 10_000


def build_api(store: Callable[[], Any]) -> Blueprint:
    """The blueprint; `store` returns the gated store of this process."""
    api = Blueprint(API_BLUEPRINT, __name__, url_prefix="/quantgov/api")
    answer_in_json(api)
    api.before_request(refuse_other_sites)

    @api.get("/openapi.json")
    @route_contract("This document.", gives=contract.AnyObject)
    def document() -> Response:
        return jsonify(openapi(current_app))

    @api.get("/status")
    @route_contract("What stands in front of the registry.", gives=contract.Status)
    def status() -> Response:
        policy = store().quantgov_policy()
        described = {"name": policy.name, "digest": policy.digest, "mode": policy.mode}
        keys = keys_status(policy, store().quantgov_keys())
        return jsonify(gated=True, version=__version__, policy=described, keys=keys, store=store().engine.dialect.name)

    @api.get("/policy")
    @route_contract("The policy in force.", gives=contract.PolicyText)
    def policy() -> Response:
        found = store().quantgov_policy()
        return jsonify(name=found.name, digest=found.digest, text=found.text)

    @api.get("/keys")
    @route_contract("The trusted keys.", gives=contract.KeysText)
    def keys() -> Response:
        found = store().quantgov_keys()
        return jsonify(digest=found.digest, text=found.to_text())

    @api.post("/statements")
    @route_contract("Have a statement taken in.", takes=contract.StatementRequest, gives=contract.TakenIn)
    def statements() -> Response:
        name, version, statement = _fields("name", "version", "statement")
        return jsonify(taken_in(store().quantgov_take_in(name, version, statement.encode())))

    @api.post("/draws")
    @route_contract("Which items are measured again.", takes=contract.DrawRequest, gives=contract.Drawn)
    def draws() -> Response:
        name, version = _fields("name", "version")
        wanted = read_body().get("statement")
        return jsonify(store().quantgov_draw(name, version, wanted if isinstance(wanted, str) else None))

    @api.post("/check")
    @route_contract("The decision, unasked for.", takes=contract.CheckRequest, gives=contract.DecisionAnswer)
    def check() -> Response:
        return jsonify(store().quantgov_check(*_fields("name", "version", "to")).to_dict())

    @api.get("/decisions/<decision_id>")
    @route_contract("One entry of the ledger, whole.", gives=contract.RecordedBody)
    def decision(decision_id: str) -> tuple[Response, int] | Response:
        found = store().quantgov_decision(decision_id)
        if found is None:
            missing = UsageError(
                "There is no such decision.", why="The ledger is asked by its ids.", fix="quantgov audit log"
            )
            return jsonify(error=missing.to_dict()), 404
        return jsonify(found)

    @api.get("/ledger")
    @route_contract("Entries of the ledger.", query=contract.LedgerQuery, gives=contract.Rows)
    def rows() -> Response:
        limit = min(request.args.get("limit", 100, type=int), MAX_ROWS)
        return jsonify(rows=store().quantgov_ledger(request.args.get("model"), limit))

    @api.get("/ledger/verify")
    @route_contract("Whether the chain is unbroken.", gives=contract.Chain)
    def verify() -> Response:
        found = store().quantgov_verify()
        return jsonify(ok=found.ok, rows=found.rows, first_bad=found.first_bad)

    return api


def _fields(*names: str) -> list[str]:
    """Texts of the body, which the route's contract has checked."""
    return [read_body()[name] for name in names]

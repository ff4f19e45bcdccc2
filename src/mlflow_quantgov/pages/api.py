"""The JSON API under /quantgov/api/."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.gate.clients.answers import keys_status, policy_status, taken_in
from mlflow_quantgov.gate.clients.deployment import describe
from mlflow_quantgov.gate.doors.actor import LOGIN
from mlflow_quantgov.pages import contract
from mlflow_quantgov.pages.contract import route_contract
from mlflow_quantgov.pages.openapi import API_BLUEPRINT, openapi
from mlflow_quantgov.pages.permissions import may_see
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
        keys = keys_status(policy, store().quantgov_keys())
        described = policy_status(policy)
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

    @api.get("/pointers")
    @route_contract("How versions came to protected places.", query=contract.PointersQuery, gives=contract.Pointers)
    def pointers() -> Response:
        found = store().quantgov_pointers(request.args.get("model"))
        return jsonify(pointers=[one for one in found if may_see(one["model"])])

    @api.post("/standing")
    @route_contract("How one came to where it stands.", takes=contract.CheckRequest, gives=contract.StandingAnswer)
    def standing() -> Response:
        return jsonify(store().quantgov_standing(*_fields("name", "version", "to")))

    @api.post("/recheck")
    @route_contract("What would be decided today.", takes=contract.CheckRequest, gives=contract.Rechecked)
    def recheck() -> Response:
        return jsonify(store().quantgov_recheck(*_fields("name", "version", "to")))

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
        found = store().quantgov_ledger(request.args.get("model"), limit)
        return jsonify(rows=[row for row in found if may_see(row["model"], row["workspace"])])

    @api.get("/ledger/verify")
    @route_contract("Whether the chain is unbroken.", query=contract.VerifyQuery, gives=contract.Chain)
    def verify() -> Response:
        wanted = [int(one) for one in request.args.get("rows", "").split(",") if one]
        found = asdict(store().quantgov_verify(wanted))
        return jsonify(
            found | {"pointers": [one for one in found["pointers"] if may_see(one["model"], one["workspace"])]}
        )

    @api.get("/ledger/export")
    @route_contract("Every entry, one a line, and how many.", gives=contract.AnyObject, lines=True)
    def export() -> Response:
        def lines() -> Iterator[str]:
            count = 0
            for row in exported:
                count += 1
                yield json.dumps(row, ensure_ascii=False) + "\n"
            yield json.dumps({"rows": count}) + "\n"  # so that whoever reads knows that nothing is missing

        exported = store().quantgov_export()
        return Response(lines(), mimetype=contract.LINES)

    @api.get("/decisions/<decision_id>/record")
    @route_contract("What a decision needs to be made again.", gives=contract.Record)
    def record(decision_id: str) -> Response:
        return jsonify(store().quantgov_record(decision_id))

    @api.get("/triggers")
    @route_contract("Which triggers the database has.", gives=contract.Triggers)
    def triggers() -> Response:
        return jsonify(store().quantgov_triggers().to_dict())

    @api.get("/deployment")
    @route_contract("What stands around the gate.", gives=contract.DeploymentAnswer)
    def deployment() -> Response:
        login, stale = current_app.config.get(LOGIN), store().quantgov_stale()
        return jsonify(describe(store().engine, login=login, stale=stale).to_dict())

    return api


def _fields(*names: str) -> list[str]:
    """Texts of the body, which the route's contract has checked."""
    return [read_body()[name] for name in names]

"""The pages under /quantgov/."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flask import Blueprint
from werkzeug.exceptions import NotFound

from mlflow_quantgov.flavor.download import search_versions
from mlflow_quantgov.gate.clients.answers import decision_from_dict
from mlflow_quantgov.gate.database import workspaces
from mlflow_quantgov.pages.entry import recorded
from mlflow_quantgov.pages.permissions import may_see
from mlflow_quantgov.pages.problems import answer_in_pages
from mlflow_quantgov.pages.render import render
from mlflow_quantgov.pages.report import render_report
from mlflow_quantgov.policy.matching import gated_destinations, observing, refuses_nothing

SHOWN = 200
JUDGED = {"promotion", "denial", "inherited"}
"""Kinds of ledger rows that say where a version may stand."""


def build_views(store: Callable[[], Any]) -> Blueprint:
    """The blueprint; `store` returns the gated store of this process."""
    views = Blueprint("quantgov_views", __name__, url_prefix="/quantgov")

    def page(template: str, *, stale: str | None = None, **values: Any) -> str:
        policy = store().quantgov_policy()
        idle, observed = refuses_nothing(policy), observing(policy)
        return render(template, policy=policy, idle=idle, observed=observed, stale=stale, **values)

    def current(template: str, **values: Any) -> str:
        """A page that also asks the database whether this server still decides, as no page about an outage may."""
        return page(template, stale=store().quantgov_stale(), **values)

    def rows(limit: int) -> list[dict[str, Any]]:
        return [row for row in store().quantgov_ledger(None, limit) if may_see(row["model"], row["workspace"])]

    answer_in_pages(views, page)

    @views.get("/")
    def index() -> str:
        found = [model for model in store().search_registered_models(max_results=1000) if may_see(model.name)]
        return current("index.html", models=[_model(store(), model) for model in found], rows=rows(20))

    @views.get("/models/<name>")
    def model(name: str) -> str:
        found = _model(store(), store().get_registered_model(name))
        return current("model.html", model=found, rows=store().quantgov_ledger(name, SHOWN))

    @views.get("/models/<name>/versions/<version>")
    def version(name: str, version: str) -> str:
        store().quantgov_refuse_stale()  # also where its own policy leaves open what the one in force gates
        facts = store().quantgov_facts(name, version)
        gated = gated_destinations(store().quantgov_policy(), name)
        decision = store().quantgov_decide(facts, gated[0]) if gated else None
        return render_report(facts, decision, title=f"{name} version {version}", served=True)

    @views.get("/decisions/<decision_id>")
    def decision(decision_id: str) -> str:
        row, body = store().quantgov_row(decision_id), store().quantgov_decision(decision_id)
        if row is None or body is None:
            raise NotFound("There is no such decision.")
        shown = decision_from_dict(body) if "checks" in body else None
        return current("entry.html", row=row, here=workspaces.current(), decision=shown, recorded=recorded(body))

    @views.get("/pointers")
    def pointers() -> str:
        found = [one for one in store().quantgov_pointers() if may_see(one["model"])]
        return current("pointers.html", pointers=found)

    @views.get("/ledger")
    def ledger() -> str:
        found = store().quantgov_verify()
        chain = replace(found, pointers=tuple(one for one in found.pointers if may_see(one.model, one.workspace)))
        return current("ledger.html", rows=rows(SHOWN), chain=chain)

    return views


def _model(store: Any, model: Any) -> dict[str, Any]:
    """A registered model with its versions, newest first: where each stands, and what was decided last."""
    stands: dict[str, list[str]] = {}
    for held in store.quantgov_stands(model.name):
        stands.setdefault(held.version, []).append(held.destination)
    latest: dict[str, dict[str, Any]] = {}
    for row in store.quantgov_ledger(model.name, SHOWN):
        if row["kind"] in JUDGED and row["version"]:
            latest.setdefault(str(row["version"]), row)
    found = search_versions(store.search_model_versions, model.name)
    versions = [
        {
            "version": str(one.version),
            "stands": stands.get(str(one.version), []),
            "description": one.description or "",
            "latest": latest.get(str(one.version)),
        }
        for one in sorted(found, key=lambda one: -int(one.version))
    ]
    return {"name": model.name, "versions": versions}

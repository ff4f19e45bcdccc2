"""The pages on a gated store: what they show, and that nothing of a name or a text is taken for markup."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mlflow_quantgov.evidence.predicates import DocumentRecord, Fidelity, FidelityV1, Provenance, Side
from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecordV1, kl_bin
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.pages.entry import recorded
from mlflow_quantgov.pages.fidelity_plot import kl_plot
from mlflow_quantgov.pages.plot import Interval, interval_plot
from mlflow_quantgov.pages.report import render_report
from mlflow_quantgov.policy.facts import Evidence


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    """A client of the pages alone."""
    return app.test_client()


@pytest.mark.parametrize("path", ["", "models/chat", "models/chat/versions/1", "ledger"])
def test_pages_show_the_model_and_escape_what_others_wrote(browser: FlaskClient, path: str) -> None:
    answer = browser.get(f"/quantgov/{path}")
    assert answer.status_code == 200 and "chat" in answer.text
    assert "<script" not in answer.text
    assert "http://" not in answer.text and "https://" not in answer.text


def test_the_latest_decision_stands_beside_its_version(browser: FlaskClient, store: Any) -> None:
    decision = store.quantgov_ledger("chat")[0]["decision_id"]
    assert (
        f'<a href="/quantgov/decisions/{decision}" class="refused">refused</a> at @champion'
        in browser.get("/quantgov/models/chat").text
    )


def test_a_decision_shows_its_checks_and_remedies(browser: FlaskClient, store: Any) -> None:
    decision = store.quantgov_ledger("chat")[0]["decision_id"]
    text = browser.get(f"/quantgov/decisions/{decision}").text
    assert "Refused" in text and "rollback-archive" in text and "quantgov archive models:/chat/1" in text


def test_every_entry_says_who_did_what_and_when(browser: FlaskClient, store: Any) -> None:
    rows = store.quantgov_ledger(None, 1000)
    assert {row["kind"] for row in rows} >= {"denial", "policy"}
    for row in rows:
        text = browser.get(f"/quantgov/decisions/{row['decision_id']}").text
        assert f"<h1>{row['kind'].capitalize()}" in text and "[]" not in text and "None" not in text
        for shown in (row["created_at"][:19].replace("T", " "), row["actor"], row["actor_source"], row["row_hash"]):
            assert shown in text, (row["kind"], shown)
        if row["version"]:
            assert f'href="/quantgov/models/{row["model"]}/versions/{row["version"]}"' in text


def test_an_entry_of_a_version_that_was_not_made_leads_to_none(browser: FlaskClient, store: Any) -> None:
    """A refused creation: its number is `new`, and no time is when it was created."""
    entry = Entry("denial", "ada", "header", "chat", "new", "@champion", "refused", None, {"judged": {"created": 0}})
    with store._sessions.transaction() as session:
        ledger.append(session, entry)
    text = browser.get(f"/quantgov/decisions/{entry.decision_id}").text
    assert "chat</a> version new" in text and "versions/new" not in text and "1970" not in text


@pytest.mark.parametrize("created", [10**30, -(10**30), -(10**14)])
def test_a_time_that_is_none_is_shown_as_it_was_recorded(created: int) -> None:
    assert recorded({"judged": {"created": created}}) == [("judged: created", str(created))]


def test_an_entry_hides_nothing_that_was_recorded() -> None:
    body = {
        "kind": "task-eval", "signed_by": [], "nobody": None, "judged": {"created": 1_795_710_065_081, "source": "models:/m-1"},
        "signatures": [{"name": "ada", "roles": ["measurer", "approver"]}], "of_later": {"deep": {"yes": True}},
        "checks": [{"check": "identity", "evidence": []}, {"check": "task-eval", "evidence": ["sha256:1", "sha256:2"]}],
    }  # fmt: skip
    assert recorded(body) == [
        ("kind", "task-eval"),
        ("signed by", "none"),
        ("judged: created", "2026-11-26 16:21:05 UTC"),
        ("judged: source", "models:/m-1"),
        ("signatures 1: name", "ada"),
        ("signatures 1: roles", "measurer, approver"),
        ("of later: deep: yes", "yes"),
        ("evidence of task-eval", "sha256:1, sha256:2"),
    ]


def test_a_served_report_leads_back_and_a_file_leads_nowhere(browser: FlaskClient, store: Any) -> None:
    assert 'href="/quantgov/ledger"' in browser.get("/quantgov/models/chat/versions/1").text
    assert "<nav" not in render_report(store.quantgov_facts("chat", "1"), None, title="chat version 1")


@pytest.mark.parametrize("path", ["models/none", "models/chat/versions/9", "models/chat/versions/x", "decisions/none"])
def test_what_is_not_there_is_said_and_not_a_defect(browser: FlaskClient, path: str) -> None:
    assert 400 <= browser.get(f"/quantgov/{path}").status_code < 500


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "check", None),
        ("post", "check", "[]"),
        ("post", "check", '{"name": "chat"}'),
        ("post", "check", '{"name": 1, "version": [], "to": {}}'),
        ("post", "check", '{"name": "none", "version": "1", "to": "@champion"}'),
        ("post", "statements", '{"name": "chat", "version": "1", "statement": "{"}'),
        ("post", "statements", '{"name": "chat", "version": "1", "statement": "[[[[[[" }'),
        ("get", "ledger?limit=-1", None),
        ("get", "decisions/none", None),
    ],
)
def test_the_api_answers_bad_requests_with_one_clear_error(
    browser: FlaskClient, store: Any, method: str, path: str, body: str | None
) -> None:
    rows = len(store.quantgov_ledger())
    answer = browser.open(f"/quantgov/api/{path}", method=method.upper(), data=body, content_type="application/json")
    assert 400 <= answer.status_code < 500
    assert answer.get_json()["error"]["message"]
    assert len(store.quantgov_ledger()) == rows


@pytest.mark.parametrize(
    "interval",
    [
        Interval("a", 0.0, 0.0, 0.0, 1e-9, "pass"),
        Interval("a", -0.5, -1.0, 1.0, 0.02, "inconclusive"),
        Interval("a", -40.0, -90.0, 12.0, 5.0, "fail"),
    ],
)
def test_an_interval_lies_within_the_plot(interval: Interval) -> None:
    plot = interval_plot([interval])
    assert plot is not None
    row = plot.rows[0]
    assert 0 <= row["lower"] <= row["estimate"] <= row["upper"] <= plot.width
    assert row["margin"] <= plot.zero
    assert 2 <= len(plot.ticks) <= 25


def test_no_interval_is_no_plot() -> None:
    assert interval_plot([]) is None


def test_the_picture_of_fidelity_holds_every_token_and_names_the_worst_documents(store: Any) -> None:
    def document(number: int, kl: float) -> DocumentRecord:
        return DocumentRecord(
            id=f"sha256:{number:064x}", tokens=10, parent_nll=20, quantized_nll=21, kl=10 * kl, kl_max=kl, same_top=9,
            identical=0, kl_counts=((kl_bin(kl), 10),),
        )  # fmt: skip

    side = Side(weights=f"sha256:{'a' * 64}", runtime="r", version="1")
    content = Fidelity.measured(
        provenance=Provenance(measured_at="2026-01-01T00:00:00Z", tool_version="0"), parent=side, quantized=side,
        data=side.weights, settings={}, documents=tuple(document(n, kl) for n, kl in enumerate((0.0, 1e-4, 0.02, 200.0))),
    )  # fmt: skip
    plot = kl_plot(content)
    assert plot is not None and sum(one["share"] for one in plot.bars) == pytest.approx(1)
    assert [one["label"] for one in plot.bars] == ["below 1e-06", "0.0001 to 0.00018", "0.018 to 0.032", "100 and more"]
    assert all(64 <= one["x"] <= plot.width - 24 for one in (*plot.bars, *plot.marks))
    statement = Statement.about(side.weights, content, name="m")
    facts = store.quantgov_facts("chat", "1")
    shown = replace(facts, evidence=(Evidence(statement, content, statement.digest, "a"),))
    text = render_report(shown, None, title="chat version 1")
    assert "Share of tokens by their KL divergence" in text and f"{content.documents[3].id[:19]}</td>" in text
    old = FidelityV1.measured(
        **{key: getattr(content, key) for key in ("provenance", "parent", "quantized", "data", "settings")},
        documents=(DocumentRecordV1(**content.documents[1].model_dump(exclude={"kl_counts"})),),
    )
    assert kl_plot(old) is None and kl_plot(None) is None
    statement = Statement.about(side.weights, old, name="m")
    shown = replace(facts, evidence=(Evidence(statement, old, statement.digest, "a"),))
    assert "Same most likely token" in render_report(shown, None, title="chat version 1")

"""Draws and spot-checks through the gated store, on SQLite and on PostgreSQL, and over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from flask import Flask
from mlflow.exceptions import MlflowException
from older_tables import back_to

from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates import SpotCheck, TaskEval
from mlflow_quantgov.evidence.signing import (
    Attached,
    TrustedKey,
    TrustedKeys,
    load_signer,
    make_key,
    sign,
    write_trusted_keys,
)
from mlflow_quantgov.evidence.statement import Statement, parse_statement
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.pages.api import build_api
from mlflow_quantgov.pages.views import build_views

sys.path.insert(0, str(Path(__file__).parents[1] / "policy"))
from releases import items, side, task
from spot_checked import CPU, on_cpu, spot_check
from test_signatures import START

pytestmark = pytest.mark.slow  # every test evaluates and opens stores anew

POLICY = """
schema: quantgov/policy/v1
name: checked
gates:
  full:
    checks: [task-eval]
    capabilities:
      edge-cases: {margin: 0.2, confidence: 0.95, min_items: 149}
    signed: {"*": measurer}
    spot_check: true
rules:
  - models: "*"
    destinations: {"@champion": full}
"""


class Release:
    """A quantized version that Ada evaluates, and Bob checks."""

    def __init__(self, database: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self.database, self.folder = monkeypatch, database, folder
        self.people = {name: load_signer(make_key(name, folder / "people")[0]) for name in ("ada", "bob")}
        (folder / "policy.yaml").write_text(POLICY)
        keys = TrustedKeys(
            keys=tuple(
                TrustedKey(
                    id=one.public.id, public_key=one.public.text, name=name, roles=("measurer",), not_before=START
                )
                for name, one in self.people.items()
            )
        )
        write_trusted_keys(folder / "keys.yaml", keys)
        monkeypatch.setenv("QUANTGOV_POLICY", str(folder / "policy.yaml"))
        monkeypatch.setenv("QUANTGOV_KEYS", str(folder / "keys.yaml"))
        self.store: Any = open_store(f"quantgov:{database}")

    def be(self, user: str) -> None:
        self._patch.setenv("MLFLOW_TRACKING_USERNAME", user)

    def evaluation(self, **changes: Any) -> TaskEval:
        facts = self.store.quantgov_facts("chat", "1")
        parent = facts.lineage.parent
        return on_cpu(
            (task("edge-cases", items([(1, 1)] * 199 + [(0, 0)], "edge")),),
            provenance=provenance(),
            parent=side(parent.weights, behaviour=parent.behaviour, settings=CPU),
            quantized=side(facts.model.weights, behaviour=facts.model.behaviour, settings=CPU),
            **changes,
        )

    def attach(self, content: TaskEval | SpotCheck, user: str, *, key: str | None = "") -> Statement:
        self.be(user)
        statement = Statement.about(self.store.quantgov_facts("chat", "1").model.weights, content, name="chat")
        signer = self.people.get(user if key == "" else key or "")
        attached = Attached(statement, sign(statement, signer) if signer else None)
        self.store.quantgov_take_in("chat", "1", attached.to_bytes())
        return statement

    def draw(self, user: str, statement: str | None = None) -> dict[str, Any]:
        self.be(user)
        return dict(self.store.quantgov_draw("chat", "1", statement))

    def check(self, seed: str, digest: str, evaluation: TaskEval, **changes: Any) -> SpotCheck:
        sides = {"parent": evaluation.parent, "quantized": evaluation.quantized}
        return spot_check(evaluation, digest, seed=seed, provenance=provenance(), **(sides | changes))

    def outcome(self) -> tuple[str, str]:
        self.be("bob")
        (found,) = self.store.quantgov_check("chat", "1", "@champion").checks
        return found.outcome, found.reason


@pytest.fixture
def release(database: str, logged: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    found = Release(database, tmp_path, monkeypatch)
    for name in ("parents", "chat"):
        found.store.create_registered_model(name)
    found.store.create_model_version("parents", logged(tmp_path / "parent", "parent-bf16", None))
    found.store.create_model_version("chat", logged(tmp_path / "child", "gptq-w4g32", tmp_path / "parent"))
    return found


def rows(release: Release, kind: str) -> list[dict[str, Any]]:
    return [row for row in release.store.quantgov_ledger("chat", limit=1000) if row["kind"] == kind]


def test_the_server_draws_once_for_each_evaluation_and_person(release: Release) -> None:
    with pytest.raises(UsageError, match="has no task evaluation"):
        release.draw("bob")
    evaluation = release.evaluation()
    statement = release.attach(evaluation, "ada")
    first, second = release.draw("bob"), release.draw(" BOB")
    assert first == second and first["statement"] == statement.digest and first["drawn_for"] == "bob"
    assert parse_statement(first["content"].encode()).content() == evaluation
    assert release.draw("ada")["seed"] != first["seed"]
    (body,) = [
        one
        for row in rows(release, "draw")
        if (one := release.store.quantgov_decision(row["decision_id"]))["drawn_for"] == "bob"
    ]
    assert body["seed"] == first["seed"] and len(rows(release, "draw")) == 2
    assert release.store.quantgov_verify().ok
    # The server that is started again has drawn already.
    release.store = open_store(f"quantgov:{release.database}")
    assert release.draw("bob") == first
    with pytest.raises(UsageError, match="has no task evaluation sha256:9"):
        release.draw("bob", "sha256:" + "9" * 64)


def test_who_draws_twice_at_once_gets_one_draw(release: Release) -> None:
    """Two requests of one person find nothing drawn yet, and both draw: the second is given what the first has drawn."""
    if "postgresql" not in release.store.db_uri:
        assert release.store.engine.dialect.name == "sqlite"  # its writers stand in line before they look
        return
    digest = release.attach(release.evaluation(), "ada").digest
    other = sqlalchemy.create_engine(release.store.db_uri)
    first: list[str] = []

    @sqlalchemy.event.listens_for(release.store.engine, "before_cursor_execute")
    def draw_first(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO quantgov_draws") and not first:
            first.append("f" * 64)
            with other.begin() as beside:
                beside.exec_driver_sql(statement, parameters | {"seed": first[0]})

    drawn = release.draw("bob")
    assert (drawn["statement"], drawn["seed"]) == (digest, first[0])


def test_a_release_needs_it_and_passes_with_it(release: Release) -> None:
    evaluation = release.evaluation()
    statement = release.attach(evaluation, "ada")
    assert release.outcome()[0] == "missing" and "there is none" in release.outcome()[1]
    mine = release.draw("ada")
    release.attach(release.check(mine["seed"], statement.digest, evaluation), "ada")
    assert release.outcome()[0] == "missing" and "ada, who has measured or attached" in release.outcome()[1]
    theirs = release.draw("bob")
    release.attach(release.check(theirs["seed"], statement.digest, evaluation), "bob")
    assert release.outcome()[0] == "pass"
    release.store.set_registered_model_alias("chat", "champion", "1")
    decision = release.store.quantgov_decision(release.store.quantgov_ledger("chat")[0]["decision_id"])
    assert {(one["name"], one["kind"]) for one in decision["signatures"]} == {
        ("ada", "task-eval"),
        ("bob", "spot-check"),
    }


def test_a_failed_one_refuses_and_a_new_evaluation_starts_over(release: Release) -> None:
    evaluation = release.evaluation()
    statement = release.attach(evaluation, "ada")
    seed = release.draw("bob")["seed"]
    release.attach(release.check(seed, statement.digest, evaluation, flips=2), "bob")
    outcome, reason = release.outcome()
    assert outcome == "missing" and "a spot-check of it failed (2 of 20 items are not what was recorded)" in reason
    release.attach(release.check(seed, statement.digest, evaluation), "bob")
    assert release.outcome()[0] == "missing"
    again = release.evaluation(warnings=("made again",))
    second = release.attach(again, "ada")
    assert "there is none" in release.outcome()[1]
    fresh = release.draw("bob")
    assert fresh["statement"] == second.digest and fresh["seed"] != seed
    release.attach(release.check(fresh["seed"], second.digest, again), "bob")
    assert release.outcome()[0] == "pass"


def test_items_that_somebody_chose_are_refused_at_the_door(release: Release) -> None:
    evaluation = release.evaluation()
    statement = release.attach(evaluation, "ada")
    seed = release.draw("bob")["seed"]
    for content, words in (
        (release.check("6" * 64, statement.digest, evaluation), "has not drawn its items"),
        (release.check(seed, "sha256:" + "9" * 64, evaluation), "its evaluation was not taken in"),
    ):
        with pytest.raises(EvidenceError, match=words) as raised:
            release.attach(content, "bob")
        assert "Fix: quantgov spot-check models:/chat/1" in str(raised.value)
    assert {one.kind for one in release.store.quantgov_facts("chat", "1").evidence} == {"task-eval"}


def test_a_copy_beside_the_model_is_heard_in_whatever_order_it_is_read(release: Release) -> None:
    """`spot-check-...` comes before `task-eval-...` in a folder."""
    evaluation = release.evaluation()
    subject = release.store.quantgov_facts("chat", "1").model.weights
    about = Statement.about(subject, evaluation, name="chat")
    check = release.check("7" * 64, about.digest, evaluation, flips=1, drawn_by="checker")
    folder = release.folder / "child" / EVIDENCE_FOLDER
    folder.mkdir(parents=True)
    for statement, who in ((about, "ada"), (Statement.about(subject, check, name="chat"), "bob")):
        attached = Attached(statement, sign(statement, release.people[who]))
        (folder / copy_name(attached)).write_bytes(attached.to_bytes())
    outcome, reason = release.outcome()
    assert outcome == "missing" and "a spot-check of it failed" in reason
    assert not [one for one in release.store.quantgov_facts("chat", "1").problems if "copy" in one]


def test_rows_of_before_draws_stay_readable(release: Release) -> None:
    statement = release.attach(release.evaluation(), "ada")
    with release.store.engine.begin() as connection:
        back_to(connection, "0002")
    release.store = open_store(f"quantgov:{release.database}")
    assert release.draw("bob")["statement"] == statement.digest


def test_a_draw_over_http(release: Release) -> None:
    evaluation = release.evaluation()
    statement = release.attach(evaluation, "ada")
    app = Flask("test")
    app.register_blueprint(build_api(lambda: release.store))
    app.register_blueprint(build_views(lambda: release.store))
    browser = app.test_client()
    body = {"name": "chat", "version": "1"}
    first = browser.post("/quantgov/api/draws", json=body, auth=("bob", "x")).get_json()
    other = browser.post("/quantgov/api/draws", json=body, auth=("zoe", "x")).get_json()
    named = browser.post(
        "/quantgov/api/draws", json=body | {"statement": statement.digest}, auth=("bob", "x")
    ).get_json()
    assert first == named and first["seed"] != other["seed"] and other["drawn_for"] == "zoe"
    wrong = browser.post("/quantgov/api/draws", json=body | {"statement": "sha256:" + "9" * 64}, auth=("bob", "x"))
    assert wrong.status_code == 400 and wrong.get_json()["error"]["fix"].startswith("quantgov evaluate")
    assert "draw" in browser.get("/quantgov/ledger").get_data(as_text=True)


def test_what_is_altered_on_the_way_is_no_spot_check(release: Release) -> None:
    """A summary that its records do not give is refused like that of any statement."""
    evaluation = release.evaluation()
    statement = release.attach(evaluation, "ada")
    failed = release.check(release.draw("bob")["seed"], statement.digest, evaluation, flips=1)
    lied = failed.model_copy(update={"summary": failed.summary | {"outcome": "pass"}})
    with pytest.raises(EvidenceError, match="outcome"):
        release.attach(lied, "bob")
    assert replace(release.store.quantgov_facts("chat", "1"), evidence=()).draws


def test_a_wider_version_whose_evaluation_was_refuted_was_not_evaluated(registry: Callable[..., Any]) -> None:
    """Below four bit the gate reads the evaluation of another version; what refutes it counts there too."""
    from narrow_releases import narrow, refused, wide

    found = registry()
    first = wide(found)
    version = narrow(found)
    found.train(version)
    found.evaluate(version)
    assert found.check(version).outcome == "pass"
    drawing = found.store.quantgov_draw("chat", first)
    evaluation = parse_statement(drawing["content"].encode()).content()
    assert isinstance(evaluation, TaskEval)
    sides = {"parent": evaluation.parent, "quantized": evaluation.quantized}
    content = spot_check(
        evaluation, drawing["statement"], seed=drawing["seed"], flips=20, provenance=provenance(), **sides
    )
    judge = found.store._judge

    def refuted_meanwhile(*given: Any) -> Any:
        judged = judge(*given)
        found.take_in(first, content)  # the same bytes are taken in once
        return judged

    found.store._judge = refuted_meanwhile
    with pytest.raises(MlflowException, match="a spot-check of it failed"):
        found.store.set_registered_model_alias("chat", "champion", version)
    check = refused(found, "was evaluated", "missing", version)
    assert "a spot-check of it failed (20 of 20 items score otherwise" in check.reason

"""Approvals through the gated store, on SQLite and on PostgreSQL, over HTTP, and by the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from flask import Flask
from mlflow.exceptions import MlflowException

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates import Approval, Predicate, Withdrawal
from mlflow_quantgov.evidence.signing import (
    Attached,
    TrustedKey,
    TrustedKeys,
    load_signer,
    make_key,
    sign,
    write_trusted_keys,
)
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.database.tables import SignatureRow
from mlflow_quantgov.gate.doors import actor
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.pages.api import build_api
from mlflow_quantgov.pages.views import build_views

DAY = timedelta(days=1)
POLICY = """
schema: quantgov/policy/v1
name: two-people
gates: {full: {checks: [lineage, approvals], approvals: DEMAND}}
rules: [{models: "*", destinations: {"@champion": full, "@production": full, "@candidate": open}}]
"""


class Release:
    """A quantized version of which two people have to approve."""

    def __init__(self, database: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database, self.folder, self.patch = database, folder, monkeypatch
        self.people = {name: load_signer(make_key(name, folder / "people")[0]) for name in ("ada", "ben", "cyd", "eve")}
        start = datetime(2026, 1, 1, tzinfo=UTC)
        keys = [
            TrustedKey(id=one.public.id, public_key=one.public.text, name=name, not_before=start,
                       roles=("measurer",) if name == "cyd" else ("approver",))
            for name, one in self.people.items() if name != "eve"
        ]  # fmt: skip
        write_trusted_keys(folder / "keys.yaml", TrustedKeys(keys=tuple(keys)))
        monkeypatch.setenv("QUANTGOV_KEYS", str(folder / "keys.yaml"))

    def open(self, demand: str = "2") -> Any:
        (self.folder / "policy.yaml").write_text(POLICY.replace("DEMAND", demand))
        self.patch.setenv("QUANTGOV_POLICY", str(self.folder / "policy.yaml"))
        self.store: Any = open_store(f"quantgov:{self.database}")
        return self.store

    def values(self, **changes: Any) -> dict[str, Any]:
        facts = self.store.quantgov_facts("chat", "1")
        values = {"provenance": provenance(), "model": "chat", "version": "1", "created": facts.created,
                  "destination": "@champion", "manifest": facts.model.manifest,
                  "policy": self.store.quantgov_policy().digest}  # fmt: skip
        return values | changes

    def give(self, content: Predicate, *signers: str, user: str = "courier") -> Any:
        self.patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        statement = Statement.about(self.store.quantgov_facts("chat", "1").model.weights, content, name="chat")
        sent = [Attached(statement, sign(statement, self.people[who])) for who in signers] or [Attached(statement)]
        return [self.store.quantgov_take_in("chat", "1", one.to_bytes()) for one in sent][-1]

    def approve(self, *signers: str, user: str = "courier", **changes: Any) -> Any:
        return self.give(Approval.measured(**self.values(**changes)), *signers, user=user)

    def withdraw(self, *signers: str, user: str = "courier", **changes: Any) -> Any:
        values = {name: value for name, value in self.values().items() if name not in {"manifest", "policy"}}
        return self.give(Withdrawal.measured(**(values | changes)), *signers, user=user)

    def ask(self, user: str = "rita", to: str = "@champion") -> Any:
        self.patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        return self.store.quantgov_check("chat", "1", to)

    def promote(self, user: str = "rita") -> bool:
        self.patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        try:
            self.store.set_registered_model_alias("chat", "champion", "1")
        except MlflowException as error:
            assert error.get_http_status_code() == 403
            return False
        return True


@pytest.fixture
def release(database: str, logged: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    found = Release(database, tmp_path, monkeypatch)
    found.open()
    found.store.create_registered_model("parents")
    found.store.create_registered_model("chat")
    found.store.create_model_version("parents", logged(tmp_path / "parent", "parent-bf16", None))
    found.store.create_model_version("chat", logged(tmp_path / "child", "gptq-w4g32", tmp_path / "parent"))
    return found


def test_two_people_approve_and_the_ledger_says_who(release: Release) -> None:
    assert not release.promote()
    release.approve("ada")
    release.approve("ada", reason="once more")
    assert not release.promote()
    release.approve("ben")
    # Whoever asks does not count, however many keys are there.
    assert not release.promote("Ben") and release.ask("ADA").exit_code == 3
    assert release.promote()
    rows = release.store.quantgov_ledger("chat")
    assert [(row["about"], row["destination"]) for row in rows if row["kind"] == "statement"] == [
        ("approval", "@champion")
    ] * 3
    decision = release.store.quantgov_decision(rows[0]["decision_id"])
    assert "approved by ada, ben" in decision["labels"]
    assert {one["name"] for one in decision["signatures"]} == {"ada", "ben"}
    assert not release.ask(to="@production").allowed


def test_withdrawn_by_the_same_key_it_counts_no_longer(release: Release) -> None:
    release.approve("ada", "ben")
    assert release.ask().allowed, [(one.check, one.reason) for one in release.ask().checks]
    with pytest.raises(EvidenceError, match="not verified"):
        release.withdraw(by="ada", user="ada")
    release.withdraw("ada")
    found = release.ask()
    assert not found.allowed and "ada's is withdrawn" in found.checks[1].reason
    release.approve("ada")
    assert release.ask().allowed, [(one.check, one.reason) for one in release.ask().checks]


def test_what_was_withdrawn_does_not_come_back_when_the_key_that_withdrew_it_is_revoked(release: Release) -> None:
    """Ben has two keys. A revoked one vouches for nothing; what it took away stays away."""
    release.people["ben-2"] = load_signer(make_key("ben-2", release.folder / "people")[0])

    def trust(**changes: Any) -> None:
        holders = {"ada": "ada", "ben": "ben", "ben-2": "ben"}
        keys = [
            TrustedKey(id=one.public.id, public_key=one.public.text, name=holders[key], roles=("approver",),
                       not_before=datetime(2026, 1, 1, tzinfo=UTC), **(changes if key == "ben-2" else {}))
            for key, one in release.people.items() if key in holders
        ]  # fmt: skip
        write_trusted_keys(release.folder / "keys.yaml", TrustedKeys(keys=tuple(keys)))
        release.open()

    trust()
    release.approve("ada", "ben")
    assert release.ask().allowed
    release.withdraw("ben-2")
    assert not release.ask().allowed
    trust(revoked_at=datetime.now(UTC), reason="laptop stolen")
    assert not release.promote() and "ben's is withdrawn" in release.ask().checks[1].reason
    release.approve("ben", reason="looked again")
    assert release.promote()


def test_an_old_approval_stays_old_whatever_its_key_is_called(release: Release) -> None:
    release.open("{count: 1, within_days: 30}")
    taken = release.approve("ada")
    assert release.ask().allowed
    with release.store.engine.begin() as connection:
        triggers.remove(connection)
        connection.execute(sqlalchemy.update(SignatureRow).values(received_at=datetime.now(UTC) - 60 * DAY))
    made = sign(taken.statement, release.people["ada"])
    for hint in (made.key, "", "x1"):
        release.store.quantgov_take_in("chat", "1", replace(made, key=hint).to_bytes())
        found = release.ask()
        assert not found.allowed and "older than 30 days" in found.checks[1].reason, hint
    # To approve again is a statement of its own.
    release.approve("ada")
    assert release.ask().allowed


def test_what_was_withdrawn_does_not_come_back_under_another_hint(release: Release) -> None:
    """Neither an approval, also of a person whose clock is behind, nor a withdrawal against what was approved since."""
    release.open("1")
    # Ada signs the withdrawal on a machine whose clock is a minute behind.
    behind = provenance().model_copy(update={"measured_at": datetime.now(UTC) - timedelta(minutes=1)})
    approved, withdrawn = release.approve("ada"), release.withdraw("ada", provenance=behind)
    assert not release.ask().allowed

    def send(statement: Statement) -> None:
        release.store.quantgov_take_in("chat", "1", replace(sign(statement, release.people["ada"]), key="").to_bytes())

    send(approved.statement)
    assert not release.ask().allowed
    release.approve("ada")
    assert release.ask().allowed
    send(withdrawn.statement)
    assert release.ask().allowed


def test_a_number_in_another_spelling_is_the_same_version(release: Release) -> None:
    release.open("1")
    statement = release.approve("ada").statement
    assert release.ask().allowed
    content = Withdrawal.measured(
        **{name: value for name, value in release.values().items() if name not in {"manifest", "policy"}}
    )
    withdrawal = Statement.about(statement.subject_digest, content, name="chat")
    release.store.quantgov_take_in("chat", "01", sign(withdrawal, release.people["ada"]).to_bytes())
    assert not release.ask().allowed
    rows = [row for row in release.store.quantgov_ledger("chat") if row["kind"] == "statement"]
    assert {row["version"] for row in rows} == {"1"}
    # Under a number that is nobody's it would be taken in, and never count.
    elsewhere = Statement.about(
        statement.subject_digest, Approval.measured(**release.values(version="01")), name="chat"
    )
    for spelling in ("1", "01"):
        with pytest.raises(EvidenceError, match="is for chat version 01, not for chat version 1"):
            release.store.quantgov_take_in("chat", spelling, sign(elsewhere, release.people["ada"]).to_bytes())


def test_a_withdrawal_between_the_judgement_and_the_change_is_seen(release: Release) -> None:
    release.approve("ada", "ben")
    judge, back = release.store._judge, ["ben"]

    def withdrawn_meanwhile(*given: Any) -> Any:
        found = judge(*given)
        while back:
            release.withdraw(back.pop(), user="rita")
        return found

    release.store._judge = withdrawn_meanwhile
    assert not release.promote()
    assert dict(release.store.get_registered_model("chat").aliases) == {}


def test_what_would_count_for_nothing_is_refused_at_the_desk(release: Release) -> None:
    now = datetime.now(UTC)
    table: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        ("key has not the role approver but measurer", ("cyd",), {}),
        ("whose key is untrusted here", ("eve",), {}),
        ("signed by nobody, and the policy wants a key", (), {"by": "courier"}),
        ("not for chat version 1 as it is now", ("ada",), {"created": 1}),
        ("not for chat version 1 as it is now", ("ada",), {"model": "parents"}),
        ("of other files", ("ada",), {"manifest": f"sha256:{'0' * 64}"}),
        ("given under the policy", ("ada",), {"policy": f"sha256:{'0' * 64}"}),
        ("asks for no approvals", ("ada",), {"destination": "@candidate"}),
        ("asks for no approvals", ("ada",), {"destination": "@nowhere"}),
        ("ended on", ("ada",), {"until": now}),
        ("names ben, and is signed by ada", ("ada",), {"by": "ben"}),
    ]
    for words, signers, changes in table:
        with pytest.raises(EvidenceError, match=words):
            release.approve(*signers, **changes)
    assert not [row for row in release.store.quantgov_ledger("chat") if row["kind"] == "statement"]


def test_a_copy_beside_the_model_approves_of_nothing(release: Release) -> None:
    facts = release.store.quantgov_facts("chat", "1")
    statement = Statement.about(facts.model.weights, Approval.measured(**release.values()), name="chat")
    for who in ("ada", "ben"):
        attached = Attached(statement, sign(statement, release.people[who]))
        folder = release.folder / "child" / EVIDENCE_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        (folder / copy_name(attached)).write_bytes(attached.to_bytes())
    assert not release.ask().allowed


def test_a_version_that_was_made_again_inherits_nothing(release: Release, logged: Callable[..., str]) -> None:
    kept = release.approve("ada", "ben")
    envelope = Attached(kept.statement, sign(kept.statement, release.people["ada"])).to_bytes()
    assert release.ask().allowed, [(one.check, one.reason) for one in release.ask().checks]
    with release.store.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE model_versions SET creation_time = creation_time + 1 WHERE name = 'chat'")
        )
    found = release.ask()
    assert not found.allowed and "which was deleted since" in found.checks[1].reason
    with pytest.raises(EvidenceError, match="as it is now"):
        release.store.quantgov_take_in("chat", "1", envelope)


def test_another_policy_voids_it_and_says_so(release: Release) -> None:
    release.approve("ada", "ben")
    release.open("{count: 2, within_days: 30}")
    assert "of before the policy changed" in release.ask().checks[1].reason
    release.open("{count: 2, policy: any}")
    assert release.ask().allowed, [(one.check, one.reason) for one in release.ask().checks]


def test_a_name_that_nothing_has_checked_never_counts(release: Release) -> None:
    release.open("{count: 1, signed: false}")
    with pytest.raises(EvidenceError, match="has not verified that ada is ada"):
        release.approve(user="ada", by="ada")
    assert [
        actor.is_verified(one) for one in (None, "http, not verified", "http from 1.2.3.4", "environment", "os-user")
    ] == [False] * 5
    assert actor.is_verified("basic-auth")
    # Whoever the server has let in by a password counts; nobody in another's name.
    with release.store.engine.begin() as connection:
        triggers.remove(connection)
        connection.execute(sqlalchemy.text("DELETE FROM quantgov_statements"))
    release.approve("ada", user="ada", by="ada")
    with release.store.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM quantgov_signatures"))
    assert "nobody has verified" in release.ask().checks[1].reason
    with release.store.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE quantgov_statements SET actor_source = 'basic-auth'"))
    assert release.ask().allowed, [(one.check, one.reason) for one in release.ask().checks]


def test_whoever_logged_it_is_recorded_where_the_policy_asks(release: Release) -> None:
    store = release.open("{count: 1, not_by: [logger]}")
    release.approve("ada")
    assert "Nobody recorded who logged" in release.ask().checks[1].reason
    release.patch.setenv("MLFLOW_TRACKING_USERNAME", "Ada")
    again = store.create_model_version("chat", str(release.folder / "child"))
    assert store.quantgov_ledger("chat")[0]["kind"] == "created"
    facts = store.quantgov_facts("chat", str(again.version))
    assert facts.logged_by == "Ada"


def test_who_may_never_approve_is_told_at_once(release: Release) -> None:
    """Said to have approved, they would wait for a promotion that their word does nothing for."""
    release.open("{count: 1, people: [Ada]}")
    with pytest.raises(EvidenceError, match="is of somebody whom the policy does not name"):
        release.approve("ben")
    release.approve("ada")
    assert release.ask().allowed
    store = release.open("{count: 1, not_by: [logger]}")
    store.delete_registered_model("chat")
    store.create_registered_model("chat")
    release.patch.setenv("MLFLOW_TRACKING_USERNAME", "Ada")
    store.create_model_version("chat", str(release.folder / "child"))
    with pytest.raises(EvidenceError, match="is of who logged it"):
        release.approve("ada")
    release.approve("ben")
    assert release.ask().allowed, [(one.check, one.reason) for one in release.ask().checks]


def test_pages_show_who_approved_and_escape_what_they_wrote(release: Release) -> None:
    app = Flask("test")
    app.register_blueprint(build_api(lambda: release.store))
    app.register_blueprint(build_views(lambda: release.store))
    client = app.test_client()
    statement = release.approve("ada", reason="<script>alert(1)</script>").statement
    body = {
        "name": "chat",
        "version": "1",
        "statement": Attached(statement, sign(statement, release.people["ben"])).to_bytes().decode(),
    }
    assert client.post("/quantgov/api/statements", json=body).status_code == 200
    assert release.promote()
    page = client.get("/quantgov/models/chat/versions/1").get_data(as_text=True)
    assert "<h2>Approvals</h2>" in page and "<td>ada</td>" in page and "<script>" not in page
    pointers = client.get("/quantgov/api/pointers").get_json()["pointers"]
    assert [(one["model"], one["how"], one["by"]) for one in pointers] == [("chat", "approved", "rita")]
    assert "by rita" in client.get("/quantgov/pointers").get_data(as_text=True)
    looked = client.post("/quantgov/api/recheck", json={"name": "chat", "version": "1", "to": "@champion"}).get_json()
    # Judged for the one who moved it, whoever looks now.
    assert looked["decision"]["decision"] == "allowed" and not looked["altered"]
    assert json.loads(client.get("/quantgov/api/status").data)["keys"]["too_few"] == {}
    missing = client.post("/quantgov/api/recheck", json={"name": "chat", "version": "1", "to": "@production"})
    assert missing.status_code == 400 and "does not stand" in missing.get_json()["error"]["message"]

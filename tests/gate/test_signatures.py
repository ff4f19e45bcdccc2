"""Signed evidence, trusted keys and waivers through the gated store, on SQLite and on PostgreSQL, and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from mlflow.exceptions import MlflowException
from older_tables import back_to

from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.weights import weight_parts
from mlflow_quantgov.errors import EvidenceError, PolicyError
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates import MadePart, Predicate, Reproduction, Waiver
from mlflow_quantgov.evidence.predicates.waiver import WaiverV1
from mlflow_quantgov.evidence.signing import (
    Attached,
    Envelope,
    Signer,
    TrustedKey,
    TrustedKeys,
    load_signer,
    make_key,
    sign,
    write_trusted_keys,
)
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.gate.database.tables import SignatureRow
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.gate.statements.intake import kept_marks
from mlflow_quantgov.gate.statements.signatures import MOST_UNTRUSTED
from mlflow_quantgov.pages.api import build_api
from mlflow_quantgov.pages.report import render_report
from mlflow_quantgov.pages.views import build_views

pytestmark = pytest.mark.slow  # every test signs and opens stores anew

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = """
schema: quantgov/policy/v1
name: signed
gates:
  full: {checks: [lineage, kernel-support], lineage_level: reproduced, signed: {"*": measurer}, asked_by: somebody-else}
rules:
  - models: "*"
    destinations: {"@champion": full}
"""


class Release:
    """A quantized version whose policy wants a signed second run, two people, and a kernel that nobody can show."""

    def __init__(self, database: str, folder: Path, child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database, self.folder, self.child, self._patch = database, folder, child, monkeypatch
        self.people = {name: load_signer(make_key(name, folder / "people")[0]) for name in ("ada", "bob", "eve")}
        (folder / "policy.yaml").write_text(POLICY)
        monkeypatch.setenv("QUANTGOV_POLICY", str(folder / "policy.yaml"))
        self.trust(self.key("ada", "measurer"), self.key("bob", "waiver", "approver"))

    def key(self, who: str, *roles: str, **changes: Any) -> TrustedKey:
        public = self.people[who].public
        values = {"id": public.id, "public_key": public.text, "name": who, "roles": roles, "not_before": START}
        return TrustedKey(**(values | changes))

    def trust(self, *keys: TrustedKey) -> Any:
        """Start the server again with other keys."""
        write_trusted_keys(self.folder / "keys.yaml", TrustedKeys(keys=keys))
        self._patch.setenv("QUANTGOV_KEYS", str(self.folder / "keys.yaml"))
        self.store: Any = open_store(f"quantgov:{self.database}")
        return self.store

    def second_run(self, library: str = "7.6.0") -> Statement:
        facts = self.store.quantgov_facts("chat", "1")
        content = Reproduction.measured(
            provenance=provenance(),
            weights=facts.model.weights,
            parent=facts.lineage.parent.weights,
            recipe=Recipe(quantizer="gptqmodel", version=library, arguments={"bits": 4}),
            ran_version=library,
            machine=this_machine(),
            made=tuple(MadePart(name=p.name, sha256=p.sha256, dtype=p.dtype, shape=p.shape) for p in weight_parts(self.child)),
            differences=(),
        )  # fmt: skip
        return self.about(content)

    def about(self, content: Predicate) -> Statement:
        return Statement.about(self.store.quantgov_facts("chat", "1").model.weights, content, name="chat")

    def waiver(self, **changes: Any) -> Statement:
        created = int(self.store.get_model_version("chat", "1").creation_timestamp)
        values = {"provenance": provenance(), "model": "chat", "version": "1", "created": created,
                  "check": "kernel-support", "reason": "the machine comes on Monday",
                  "until": datetime.now(UTC) + DAY}  # fmt: skip
        return self.about(Waiver.measured(**(values | changes)))

    def attach(self, statement: Statement, *signers: str, user: str = "ada") -> Any:
        self._patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        sent = [Attached(statement, sign(statement, self.people[who])) for who in signers] or [Attached(statement)]
        return [self.store.quantgov_take_in("chat", "1", one.to_bytes()) for one in sent][-1]

    def outcomes(self, user: str = "bob") -> dict[str, str]:
        self._patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        return {one.check: one.outcome for one in self.store.quantgov_check("chat", "1", "@champion").checks}

    def promote(self, user: str = "bob") -> dict[str, Any]:
        """Ask for it, and give the decision of the ledger."""
        self._patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        try:
            self.store.set_registered_model_alias("chat", "champion", "1")
        except MlflowException as error:
            assert error.get_http_status_code() == 403
        row = self.store.quantgov_ledger("chat")[0]
        return dict(self.store.quantgov_decision(row["decision_id"]))


@pytest.fixture
def release(database: str, logged: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    found = Release(database, tmp_path, tmp_path / "child" / "model", monkeypatch)
    found.store.create_registered_model("parents")
    found.store.create_registered_model("chat")
    found.store.create_model_version("parents", logged(tmp_path / "parent", "parent-bf16", None))
    found.store.create_model_version("chat", logged(tmp_path / "child", "gptq-w4g32", tmp_path / "parent"))
    return found


def test_signed_evidence_and_a_waiver_promote_and_the_ledger_says_who_and_by_which_keys(release: Release) -> None:
    assert release.outcomes() == {"lineage": "missing", "kernel-support": "missing"}
    release.attach(release.second_run(), "ada")
    assert release.outcomes() == {"lineage": "pass", "kernel-support": "missing"}
    release.attach(release.waiver(), "bob", user="bob")
    assert release.outcomes("ada") == {"lineage": "pass", "kernel-support": "waived", "approvals": "missing"}
    decision = release.promote()
    assert decision["decision"] == "allowed" and decision["waived"] == ["kernel-support"]
    assert decision["keys"]["digest"] == release.store.quantgov_keys().digest
    assert {(one["name"], one["kind"], one["standing"]) for one in decision["signatures"]} == {
        ("ada", "reproduction", "valid"), ("bob", "waiver", "valid")}  # fmt: skip
    row = release.store.quantgov_ledger("chat")[0]
    assert (row["kind"], row["decision"], row["waived"]) == ("promotion", "allowed", ["kernel-support"])
    assert release.store.quantgov_verify().ok
    facts = release.store.quantgov_facts("chat", "1")
    page = render_report(facts, release.store.quantgov_check("chat", "1", "@champion"), title="chat")
    assert 'class="waived">with kernel-support waived' in page and '<span class="pass">ada</span>' in page


@pytest.mark.parametrize(
    ("signers", "words"),
    [
        ((), "signed by nobody"),
        (("eve",), "signed by the untrusted key"),
        (("bob",), "has not the role measurer but waiver and approver"),
        (("bob", "eve"), "has not the role measurer"),
    ],
)
def test_what_no_measurer_vouches_for_is_kept_and_counts_for_nothing(
    release: Release, signers: tuple[str, ...], words: str
) -> None:
    taken = release.attach(release.second_run(), *signers)
    assert len(taken.signatures) == len(signers)
    decision = release.store.quantgov_check("chat", "1", "@champion")
    lineage = next(one for one in decision.checks if one.check == "lineage")
    assert lineage.outcome == "missing" and words in lineage.reason
    assert any(label.startswith("not counted: reproduction") for label in decision.labels)
    # Who signs the very same statement later makes it count; who attaches it bare again takes nothing away.
    release.attach(release.second_run(), "ada")
    release.attach(release.second_run())
    assert release.outcomes()["lineage"] == "pass"


def tampered(statement: Statement, signer: Signer) -> dict[str, Envelope]:
    made = sign(statement, signer)
    other = Statement.about(statement.subject_digest, statement.content(), name="another name")
    return {
        "payload": replace(made, payload=other.to_bytes()),
        "signature": replace(made, signature=bytes([made.signature[0] ^ 1]) + made.signature[1:]),
        "signature of another statement": replace(made, signature=sign(other, signer).signature),
    }


@pytest.mark.parametrize("what", ["payload", "signature", "signature of another statement"])
def test_a_signature_that_does_not_fit_is_refused_and_nothing_is_kept(release: Release, what: str) -> None:
    envelope = tampered(release.second_run(), release.people["ada"])[what]
    with pytest.raises(EvidenceError, match="not one of ada over these bytes"):
        release.store.quantgov_take_in("chat", "1", envelope.to_bytes())
    assert release.store.quantgov_facts("chat", "1").evidence == ()


def test_a_signed_statement_about_other_bytes_is_refused(release: Release) -> None:
    """Replayed from another version: the signature is sound, and speaks of something else."""
    elsewhere = Statement.about("sha256:" + "9" * 64, release.second_run().content(), name="chat")
    with pytest.raises(EvidenceError, match="other bytes"):
        release.attach(elsewhere, "ada")
    assert release.store.quantgov_facts("chat", "1").evidence == ()


def test_a_revoked_key_counts_no_longer_and_an_expired_one_for_what_came_before(release: Release) -> None:
    release.attach(release.second_run(), "ada")
    bob, now = release.key("bob", "waiver"), datetime.now(UTC)
    for changes, outcome in (
        ({"until": now + DAY}, "pass"),
        ({"until": now}, "pass"),
        ({"until": START + DAY}, "missing"),
        ({"not_before": now + DAY}, "missing"),
        ({"revoked_at": now, "reason": "laptop lost"}, "missing"),
        ({}, "pass"),
    ):
        release.trust(release.key("ada", "measurer", **changes), bob)
        assert release.outcomes()["lineage"] == outcome, changes
    release.trust(bob)
    assert release.outcomes()["lineage"] == "missing"


def test_a_change_of_keys_or_policy_is_a_row_and_so_is_putting_it_back(release: Release) -> None:
    def rows(kind: str) -> int:
        return sum(row["kind"] == kind for row in release.store.quantgov_ledger(limit=1000))

    ada, bob = release.key("ada", "measurer"), release.key("bob", "waiver", "approver")
    assert (rows("keys"), rows("policy")) == (1, 1)
    release.trust(ada, bob)
    assert (rows("keys"), rows("policy")) == (1, 1)
    release.trust(ada)
    release.trust(ada, bob)
    assert rows("keys") == 3
    for text in (POLICY.replace("somebody-else", "anybody"), POLICY):
        (release.folder / "policy.yaml").write_text(text)
        release.trust(ada, bob)
    assert (rows("keys"), rows("policy")) == (3, 3)
    newest = next(row for row in release.store.quantgov_ledger(limit=1000) if row["kind"] == "keys")
    body = release.store.quantgov_decision(newest["decision_id"])
    assert [one["name"] for one in body["trusted"]] == ["ada", "bob"]
    assert body["digest"] == release.store.quantgov_keys().digest


def test_a_broken_keys_file_starts_no_server(release: Release) -> None:
    text = (release.folder / "keys.yaml").read_text()
    (release.folder / "keys.yaml").write_text(text.replace("roles", "rolls", 1))
    with pytest.raises(PolicyError, match=r"keys\.yaml.*did you mean 'roles'"):
        open_store(f"quantgov:{release.database}")


def test_a_signature_that_comes_while_it_is_judged_is_seen(release: Release) -> None:
    statement = release.second_run()
    release.attach(statement)
    facts = release.store.quantgov_facts("chat", "1")
    with release.store._sessions.transaction() as session:
        assert release.store._same_evidence(session, facts)
    release.attach(statement, "ada")
    now = release.store.quantgov_facts("chat", "1")
    with release.store._sessions.transaction() as session:
        assert not release.store._same_evidence(session, facts)
        assert release.store._same_evidence(session, now)
        assert len(kept_marks(session, [statement.subject_digest])) == 2


def test_a_statement_cannot_be_covered_with_signatures(release: Release) -> None:
    statement = release.second_run()
    payload = statement.to_bytes()
    for number in range(MOST_UNTRUSTED):
        release.store.quantgov_take_in("chat", "1", Envelope(payload, "any key", bytes([number]) * 64).to_bytes())
    with pytest.raises(EvidenceError, match="signatures already"):
        release.store.quantgov_take_in("chat", "1", Envelope(payload, "any key", b"\xff" * 64).to_bytes())
    release.attach(statement, "ada")
    assert release.outcomes()["lineage"] == "pass"


def test_a_signature_is_kept_once_whatever_its_key_is_called(release: Release) -> None:
    statement = release.second_run()
    for who in ("ada", "eve"):
        made = sign(statement, release.people[who])
        for hint in (made.key, "", "x1", made.key):
            release.store.quantgov_take_in("chat", "1", replace(made, key=hint).to_bytes())
    (one,) = release.store.quantgov_facts("chat", "1").evidence
    assert [signature.name for signature in one.signatures] == ["ada", ""]
    with release.store._sessions.transaction() as session:
        assert session.query(SignatureRow).count() == 2


def test_signatures_of_before_that_were_kept_under_several_hints_count_as_they_first_came(release: Release) -> None:
    statement = release.second_run()
    release.attach(statement, "ada")
    with release.store._sessions.transaction() as session:
        (row,) = session.query(SignatureRow).all()
        first, values = row.received_at, {"statement": row.statement, "key": "x1", "signature": row.signature}
        session.add(SignatureRow(digest="sha256:x1", received_at=first + DAY, **values))
    facts = release.store.quantgov_facts("chat", "1")
    assert [one.received_at for one in facts.evidence[0].signatures] == [first.replace(tzinfo=UTC)]
    with release.store._sessions.transaction() as session:
        assert release.store._same_evidence(session, facts)


def test_a_wrong_hint_takes_no_signature_away_from_a_key_that_is_trusted_later(release: Release) -> None:
    """Somebody sends Eve's in before her, and says that it is Ada's, whose key nobody knows yet either."""
    statement, bob = release.second_run(), release.key("bob", "waiver", "approver")
    release.trust(bob)
    made = sign(statement, release.people["eve"])
    release.store.quantgov_take_in("chat", "1", replace(made, key=release.people["ada"].public.id).to_bytes())
    release.attach(statement, "eve")
    release.trust(bob, release.key("ada", "measurer"), release.key("eve", "measurer"))
    (one,) = release.store.quantgov_facts("chat", "1").evidence
    assert [(signature.name, signature.standing) for signature in one.signatures] == [("eve", "valid")]
    assert release.outcomes()["lineage"] == "pass"


def test_a_signature_by_a_key_that_is_trusted_later_counts_from_when_it_first_came(release: Release) -> None:
    statement, ada = release.second_run(), release.key("ada", "measurer")
    made = sign(statement, release.people["eve"])
    release.store.quantgov_take_in("chat", "1", made.to_bytes())
    release.trust(ada, release.key("eve", "measurer", not_before=datetime.now(UTC)))
    for hint in (made.key, "", "x1"):
        release.store.quantgov_take_in("chat", "1", replace(made, key=hint).to_bytes())
    (one,) = release.store.quantgov_facts("chat", "1").evidence
    assert [signature.standing for signature in one.signatures] == ["not-yet-valid"]
    release.trust(ada, release.key("eve", "measurer"))
    assert release.outcomes()["lineage"] == "pass"


# Copies beside the model.


def test_a_signed_copy_beside_the_model_counts_and_an_edited_one_refuses(release: Release) -> None:
    statement = release.second_run()
    attached = Attached(statement, sign(statement, release.people["ada"]))
    folder = release.folder / "child" / EVIDENCE_FOLDER
    folder.mkdir(parents=True)
    path = folder / copy_name(attached)
    path.write_bytes(attached.to_bytes())
    assert release.outcomes()["lineage"] == "pass"
    (one,) = release.store.quantgov_facts("chat", "1").evidence
    assert one.actor is None and one.signatures[0].name == "ada"
    broken = tampered(statement, release.people["ada"])["signature"]
    path.unlink()
    (folder / copy_name(Attached(statement, broken))).write_bytes(broken.to_bytes())
    problems = [one for one in release.store.quantgov_facts("chat", "1").problems if "The copy" in one]
    assert len(problems) == 1 and "was altered" in problems[0] and ".dsse.json" in problems[0]


def test_a_waiver_that_lies_beside_the_model_waives_nothing(release: Release) -> None:
    statement = release.waiver()
    attached = Attached(statement, sign(statement, release.people["bob"]))
    folder = release.folder / "child" / EVIDENCE_FOLDER
    folder.mkdir(parents=True)
    (folder / copy_name(attached)).write_bytes(attached.to_bytes())
    assert release.outcomes()["kernel-support"] == "missing"
    assert not any("waiver" in one for one in release.store.quantgov_facts("chat", "1").problems)


# Waivers.


def test_a_waiver_ends_with_its_key(release: Release) -> None:
    release.attach(release.waiver(), "bob", user="bob")
    assert release.outcomes()["kernel-support"] == "waived"
    ada, now = release.key("ada", "measurer"), datetime.now(UTC)
    for changes in ({"until": now}, {"revoked_at": now, "reason": "left"}):
        release.trust(ada, release.key("bob", "waiver", **changes))
        assert release.outcomes()["kernel-support"] == "missing", changes
    release.trust(ada, release.key("bob", "approver"))
    assert release.outcomes()["kernel-support"] == "missing"


def test_a_waiver_is_for_one_version_only(release: Release) -> None:
    """The same bytes as version 2, and the number given away again: neither is what was waived."""
    statement = release.waiver()
    release.attach(statement, "bob", user="bob")
    source = release.store.get_model_version("chat", "1").source
    release.store.create_model_version("chat", source)
    other = release.store.quantgov_check("chat", "2", "@champion")
    assert next(one.outcome for one in other.checks if one.check == "kernel-support") == "missing"
    sent = Attached(statement, sign(statement, release.people["bob"])).to_bytes()
    with pytest.raises(EvidenceError, match="not for chat version 2"):
        release.store.quantgov_take_in("chat", "2", sent)
    release.store.delete_registered_model("chat")
    release.store.create_registered_model("chat")
    release.store.create_model_version("chat", source)
    assert release.outcomes()["kernel-support"] == "missing"
    with pytest.raises(EvidenceError, match="as it is now"):
        release.store.quantgov_take_in("chat", "1", sent)


@pytest.mark.parametrize(
    ("changes", "signers", "words"),
    [
        ({}, (), "signed by nobody"),
        ({}, ("ada",), "has not the role waiver but measurer"),
        ({}, ("eve",), "untrusted"),
        ({"until": datetime(2026, 1, 1, tzinfo=UTC)}, ("bob",), "ended on 2026-01-01"),
        ({"version": "2"}, ("bob",), "is for chat version 2"),
    ],
)
def test_a_waiver_that_would_count_for_nothing_is_not_taken_in(
    release: Release, changes: dict[str, Any], signers: tuple[str, ...], words: str
) -> None:
    with pytest.raises(EvidenceError, match=words) as raised:
        release.attach(release.waiver(**changes), *signers)
    assert "Fix: quantgov waive models:/chat/1" in str(raised.value)
    assert release.store.quantgov_facts("chat", "1").evidence == ()


def test_a_waiver_of_the_earlier_form_or_without_keys_is_not_taken_in(release: Release) -> None:
    old = WaiverV1.measured(provenance=provenance(), check="kernel-support", reason="x", until=datetime.now(UTC) + DAY)
    with pytest.raises(EvidenceError, match="earlier form"):
        release.attach(release.about(old), "bob")
    release.trust()
    with pytest.raises(EvidenceError, match="untrusted"):
        release.attach(release.waiver(), "bob")


# Tables of before.


def test_rows_of_before_stay_readable_unsigned(release: Release, tmp_path: Path) -> None:
    """The database as the first migration left it, with a statement in it."""
    statement = release.second_run()
    release.attach(statement)
    with release.store.engine.begin() as connection:
        back_to(connection, "0001")
    release.trust(release.key("ada", "measurer"))
    (one,) = release.store.quantgov_facts("chat", "1").evidence
    assert (one.digest, one.signatures) == (statement.digest, ())
    release.attach(statement, "ada")
    assert release.outcomes()["lineage"] == "pass"
    assert release.store.quantgov_verify().ok


# Over HTTP.


def test_the_api_takes_envelopes_and_tells_whose_keys_are_trusted(release: Release) -> None:
    app = Flask("test")
    app.register_blueprint(build_api(lambda: release.store))
    app.register_blueprint(build_views(lambda: release.store))
    browser = app.test_client()

    def post(data: bytes, user: str) -> Any:
        body = {"name": "chat", "version": "1", "statement": data.decode()}
        return browser.post("/quantgov/api/statements", json=body, auth=(user, "x"))

    def check(user: str) -> dict[str, str]:
        body = {"name": "chat", "version": "1", "to": "@champion"}
        answer = browser.post("/quantgov/api/check", json=body, auth=(user, "x")).get_json()
        return {one["check"]: one["outcome"] for one in answer["checks"]}

    status = browser.get("/quantgov/api/status").get_json()
    assert status["keys"] == {"digest": release.store.quantgov_keys().digest, "count": 2, "lacking": [], "too_few": {}}
    assert "name: ada" in browser.get("/quantgov/api/keys").get_json()["text"]
    statement = release.second_run()
    broken = tampered(statement, release.people["ada"])["payload"].to_bytes()
    twice = json.loads(sign(statement, release.people["ada"]).to_bytes())
    twice["signatures"] *= 2
    for data in (broken, json.dumps(twice).encode()):
        answer = post(data, "ada")
        assert answer.status_code == 400 and {"message", "why", "fix"} <= answer.get_json()["error"].keys()
    assert post(statement.to_bytes(), "ada").get_json()["signed_by"] == []
    assert check("bob") == {"lineage": "missing", "kernel-support": "missing"}
    (signer,) = post(sign(statement, release.people["ada"]).to_bytes(), "ada").get_json()["signed_by"]
    assert (signer["name"], signer["roles"], signer["standing"]) == ("ada", ["measurer"], "valid")
    waiver = release.waiver()
    assert post(sign(waiver, release.people["ada"]).to_bytes(), "ada").status_code == 400
    assert post(sign(waiver, release.people["bob"]).to_bytes(), "bob").status_code == 200
    assert check("bob") == {"lineage": "pass", "kernel-support": "waived"}
    assert check("ada")["approvals"] == "missing"
    release.promote()
    for page in ("/quantgov/models/chat", "/quantgov/ledger", "/quantgov/"):
        assert '<span class="waived">(kernel-support waived)</span>' in browser.get(page).get_data(as_text=True)


def test_a_policy_that_wants_a_role_which_no_key_has_is_seen_at_once(release: Release) -> None:
    from mlflow_quantgov.gate.clients.answers import keys_status

    release.trust(release.key("bob", "waiver"))
    assert keys_status(release.store.quantgov_policy(), release.store.quantgov_keys())["lacking"] == ["measurer"]

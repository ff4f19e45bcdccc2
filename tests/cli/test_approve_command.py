"""`quantgov approve` and `qg.approve`, with a gate that is opened in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner, Result

import mlflow_quantgov as qg
from mlflow_quantgov.api.measuring_all import Given, planned
from mlflow_quantgov.cli import cli
from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.signing import TrustedKey, TrustedKeys, load_signer, make_key, write_trusted_keys

POLICY = """
schema: quantgov/policy/v1
name: approving
gates: {people: {checks: [approvals], approvals: {count: 1, parents: true, signed: SIGNED}}}
rules: [{models: "*", destinations: {"@champion": people, "@candidate": open}}]
"""


@pytest.fixture
def opened(
    new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skills: Path
) -> Iterator[Callable[[str], Path]]:
    """Opens a gate in front of `chat`, whose version 1 is the skills model, and gives the folder of Ben's key."""
    database = new_sqlite_database()
    qg.save_model(skills, tmp_path / "saved")
    signer = load_signer(make_key("ben", tmp_path)[0])
    key = TrustedKey(id=signer.public.id, public_key=signer.public.text, name="ben", roles=("approver",),
                     not_before=datetime(2026, 1, 1, tzinfo=UTC))  # fmt: skip
    write_trusted_keys(tmp_path / "keys.yaml", TrustedKeys(keys=(key,)))
    monkeypatch.setenv("QUANTGOV_KEYS", str(tmp_path / "keys.yaml"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "rita")

    def start(signed: str = "true") -> Path:
        (tmp_path / "policy.yaml").write_text(POLICY.replace("SIGNED", signed))
        monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
        mlflow.set_tracking_uri(database)
        mlflow.set_registry_uri(f"quantgov:{database}")
        client = mlflow.MlflowClient()
        client.create_registered_model("chat")
        client.create_model_version("chat", str(tmp_path / "saved"))
        return tmp_path

    yield start
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def run(*arguments: str) -> Result:
    found = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    assert found.exception is None, found.exception
    return found


def test_approve_promote_withdraw(opened: Any) -> None:
    folder = opened()
    key = str(folder / "ben.key.pem")
    refused = run("check", "models:/chat/1", "--to", "@champion")
    assert refused.return_value == 3
    assert "quantgov approve models:/chat/1 --to @champion --key NAME.key.pem (by ben)" in " ".join(
        refused.stdout.split()
    )
    shown = run("approve", "models:/chat/1", "--to", "@Champion", "--key", key, "--until", "2099-01-31")
    assert "approved" in shown.stdout and "by ben" in shown.stdout
    decision = json.loads(run("check", "models:/chat/1", "--to", "@champion", "--json").stdout)
    assert decision["decision"] == "allowed" and decision["labels"][0] == "approved by ben"
    (check,) = decision["checks"]
    assert check["numbers"]["approved_by"][0]["until"].startswith("2099-01-31")
    assert run("promote", "models:/chat/1", "--to", "@champion").return_value == 0
    assert run("recheck").return_value == 0
    assert "withdrawn" in run("approve", "models:/chat/1", "--to", "@champion", "--withdraw", "--key", key).stdout
    looked = run("recheck")
    assert looked.return_value == 3 and "ben's is withdrawn" in " ".join(looked.stdout.split())
    # What stands there stays there: only the next move is refused.
    assert run("promote", "models:/chat/1", "--to", "@champion").return_value == 3
    qg.approve("models:/chat/1", "@champion", key=key)
    assert qg.promote("models:/chat/1", "@champion").allowed


def test_whoever_asks_cannot_approve_by_a_key_of_the_same_name(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened()
    qg.approve("models:/chat/1", "@champion", key=folder / "ben.key.pem")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "BEN")
    found = qg.promote("models:/chat/1", "@champion")
    assert not found.allowed and "ben's is of who asks for it" in found.checks[0].reason


def test_mistakes_are_one_clear_line(opened: Any) -> None:
    folder = opened()
    key = folder / "ben.key.pem"
    with pytest.raises(UsageError, match="no key was named"):
        qg.approve("models:/chat/1", "@champion")
    with pytest.raises(UsageError, match="asks for no approvals"):
        qg.approve("models:/chat/1", "@candidate", key=key)
    for changes in (
        {"until": datetime.now(UTC) - timedelta(1)},
        {"until": datetime(2099, 1, 1)},
        {"reason": "x" * 1001},
    ):
        with pytest.raises(UsageError, match="still to come"):
            qg.approve("models:/chat/1", "@champion", key=key, **changes)


def test_without_a_login_that_was_checked_a_name_approves_of_nothing(opened: Any) -> None:
    folder = opened("false")
    with pytest.raises(EvidenceError, match=r"has not verified that rita is rita \(environment\)"):
        qg.approve("models:/chat/1", "@champion")
    assert qg.approve("models:/chat/1", "@champion", key=folder / "ben.key.pem")["attached"]


def test_measure_all_says_who_must_approve_and_measures_nothing_for_it(opened: Any) -> None:
    opened()
    (step,) = planned(qg.check("models:/chat/1", "@champion"), Given(), "models:/chat/1")
    assert (step.kind, step.check, step.state) == ("approval", "approvals", "lacking")
    assert step.said.startswith("by people: 0 of 1 approval") and "(by ben)" in step.fix


def test_doctor_says_where_fewer_people_have_a_key_than_must_approve(opened: Any) -> None:
    folder = opened()
    assert "1 trusted" in " ".join(run("doctor").stdout.split())
    policy = folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("count: 1", "count: 2"))
    shown = run("doctor")
    assert shown.return_value == 1
    assert "wants 2 people to approve, and fewer are approver" in " ".join(shown.stdout.split())

"""The main job on a real server: plain REST, the client, loading, rollback, tampering."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
import sqlalchemy

import mlflow_quantgov as qg
from mlflow_quantgov.demo.server import free_port
from mlflow_quantgov.errors import EvidenceError, LineageError, TamperingError, UsageError
from mlflow_quantgov.gate.clients.finding import find_gate, require_gate
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.ledger.chain import walk
from mlflow_quantgov.gate.ledger.replay import replay
from mlflow_quantgov.gate.write_once.deep_check import deep_check

pytestmark = pytest.mark.slow


def version_of(uri: str) -> str:
    return uri.rsplit("/", 1)[1]


def test_plain_rest_is_refused_and_nothing_changes(connected: Any) -> None:
    for prefix in ("api", "ajax-api"):
        answer = requests.post(
            f"{connected.url}/{prefix}/2.0/mlflow/registered-models/alias",
            json={"name": connected.model, "alias": "champion", "version": version_of(connected.bare)},
            timeout=120,
        )
        assert answer.status_code == 403
        assert answer.json()["error_code"] == "PERMISSION_DENIED"
        assert answer.json()["message"].startswith("quantgov refused")
    assert mlflow.MlflowClient().get_registered_model(connected.model).aliases == {}


def test_the_refusal_names_the_missing_training_and_measurement(connected: Any) -> None:
    decision = qg.check(connected.bare, "@champion")
    found = {check.check: check.outcome for check in decision.checks}
    assert (found["identity"], found["lineage"], found["format-fit"]) == ("pass", "pass", "pass")
    assert (found["bit-width"], found["task-eval"]) == ("missing", "missing")
    assert decision.exit_code == 3


def test_evidence_promotes_loads_answers_and_rolls_back(connected: Any) -> None:
    decision = qg.promote(connected.good, "@champion")
    assert decision.allowed, decision.one_line()
    uri = f"models:/{connected.model}@champion"
    answer = mlflow.pyfunc.load_model(uri).predict(["1234+4321="], params={"max_tokens": 8})
    with qg.load_model(uri).runtime as runtime:
        assert runtime.facts().runtime == "llama.cpp"
    assert answer[0].strip()
    done = qg.rollback(connected.model, alias="champion")
    assert (done.before, done.after) == (version_of(connected.good), version_of(connected.parent))
    assert qg.load_model(uri).predict(["1234+4321="])[0].strip()


def test_a_version_outlives_its_logged_model_run_and_experiment(
    connected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow deletes those softly: the files stay, and the version says where they are."""
    client, past = mlflow.MlflowClient(), mlflow.MlflowClient(tracking_uri=connected.database)
    found = [client.get_model_version(connected.model, version_of(one)) for one in (connected.good, connected.parent)]
    ids = [one.source.removeprefix("models:/") for one in found]
    experiment = client.get_logged_model(ids[0]).experiment_id
    with pytest.raises(mlflow.MlflowException, match="quantgov refused"):
        client.delete_logged_model(ids[0])
    try:
        for one in ids:
            past.delete_logged_model(one)  # as a server without the gate lets it be done
        client.delete_experiment(experiment)  # with its runs
        monkeypatch.setenv("QUANTGOV_CACHE", str(tmp_path / "another-client"))
        assert qg.check(connected.good, "@champion").allowed
        assert qg.promote(connected.good, "@champion").allowed
        uri = f"models:/{connected.model}@champion"
        assert qg.load_model(uri).predict(["1234+4321="])[0].strip()
        assert mlflow.pyfunc.load_model(uri).predict(["1234+4321="], params={"max_tokens": 8})[0].strip()
        qg.confirm_kernels(connected.good)
        done = qg.rollback(connected.model, alias="champion")
        assert (done.before, done.after) == (version_of(connected.good), version_of(connected.parent))
        assert qg.load_model(uri).predict(["1234+4321="])[0].strip()
    finally:
        if client.get_experiment(experiment).lifecycle_stage == "deleted":
            client.restore_experiment(experiment)
        engine = sqlalchemy.create_engine(connected.database)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE logged_models SET lifecycle_stage = 'active'"))
        engine.dispose()


def test_loading_through_a_protected_alias_needs_an_approval(connected: Any) -> None:
    engine = sqlalchemy.create_engine(connected.database)
    with engine.begin() as connection:
        triggers.remove(connection)
        statement = sqlalchemy.text(
            "INSERT INTO registered_model_aliases (workspace, alias, version, name) VALUES ('default', 'champion', :v, :n)"
        )
        connection.execute(statement, {"v": int(version_of(connected.bare)), "n": connected.model})
        triggers.install(connection)
    with pytest.raises(UsageError, match="no approval"):
        qg.load_model(f"models:/{connected.model}@champion")


def test_an_auditor_verifies_exports_and_replays(connected: Any) -> None:
    decision = qg.promote(connected.good, "@champion")
    gate = require_gate("be audited")
    found = gate.verify([1])
    assert found["ok"] and not found["pointers"]
    exported = walk(gate.export())
    assert (exported.ok, exported.rows, exported.last_hash) == (True, found["rows"], found["last_hash"])
    record = gate.record(decision.decision_id or gate.ledger(connected.model, 1)[0]["decision_id"])
    assert record["statements"]
    assert replay(record).same
    assert gate.triggers()["ok"]


def test_an_edited_copy_refuses_and_names_the_file(connected: Any) -> None:
    source = mlflow.MlflowClient().get_model_version(connected.model, version_of(connected.good)).source
    model_id = source.removeprefix("models:/")
    copies = list((connected.folder / "artifacts").rglob(f"*{model_id}*/artifacts/quantgov/evidence/task-eval-*.json"))
    original = copies[0].read_bytes()
    statement = json.loads(original)
    statement["predicate"]["tasks"][0]["items"][0]["quantized"]["score"] = 0.0
    copies[0].write_text(json.dumps(statement))
    try:
        decision = qg.promote(connected.good, "@champion")
    finally:
        copies[0].write_bytes(original)
    assert not decision.allowed
    assert copies[0].name in decision.one_line()


def test_what_was_overwritten_after_the_approval_is_not_loaded(
    connected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of another model, and a manifest beside them that fits: only the ledger knows what was approved."""
    from mlflow_quantgov.artifact.manifest import build_manifest

    assert qg.promote(connected.good, "@champion").allowed
    source = mlflow.MlflowClient().get_model_version(connected.model, version_of(connected.good)).source
    root = next((connected.folder / "artifacts").rglob(f"{source.removeprefix('models:/')}/artifacts"))
    weights = next((root / "model").glob("*.gguf"))
    other = next((connected.folder / "models").rglob("*Q2_K.gguf"))
    shutil.copy(other, tmp_path / weights.name)
    before = {path: path.read_bytes() for path in (weights, root / "quantgov" / "manifest.json")}
    manifest = build_manifest(tmp_path / weights.name).to_json().encode()
    monkeypatch.setenv("QUANTGOV_CACHE", str(tmp_path / "another-client"))
    below = f"{connected.url}/api/2.0/mlflow-artifacts/artifacts/{root.relative_to(connected.folder / 'artifacts')}"
    try:
        for name, data in ((f"model/{weights.name}", other.read_bytes()), ("quantgov/manifest.json", manifest)):
            answer = requests.put(f"{below}/{name}", data=data, timeout=60)
            assert answer.status_code == 403 and "quantgov refused" in answer.text
            (root / name).write_bytes(data)  # past the server
        with pytest.raises(TamperingError, match="not those that were approved"):
            qg.load_model(f"models:/{connected.model}@champion")
        with pytest.raises(TamperingError, match="not those that were approved"):
            mlflow.pyfunc.load_model(connected.good)
        (found,) = [
            one for one in deep_check(find_gate()) if (one.model, one.version) == tuple(connected.good.split("/")[1:])
        ]
        assert found.outcome == "fail" and "quantgov/manifest.json" in found.files
        assert not qg.check(connected.good, "@champion").allowed
    finally:
        for path, data in before.items():
            path.write_bytes(data)


def test_a_summary_that_its_items_do_not_give_is_not_taken_in(connected: Any, tmp_path: Path) -> None:
    kept = next((connected.folder / "artifacts").rglob("task-eval-*.json"))
    statement = json.loads(kept.read_bytes())
    statement["predicate"]["summary"]["addition"]["quantized_mean"] = 1.0
    (tmp_path / "s.json").write_text(json.dumps(statement))
    with pytest.raises(EvidenceError, match="where its records give"):
        qg.attach(connected.good, tmp_path / "s.json")
    answer = requests.post(
        f"{connected.url}/quantgov/api/statements",
        json={"name": connected.model, "version": version_of(connected.good), "statement": json.dumps(statement)},
        timeout=60,
    )
    assert answer.status_code == 400


def test_evidence_about_other_bytes_is_not_taken_in(connected: Any) -> None:
    kept = next((connected.folder / "artifacts").rglob("task-eval-*.json"))
    with pytest.raises(EvidenceError, match="other bytes"):
        qg.attach(connected.bare, kept)


def test_a_quantized_model_without_its_parent_is_not_logged(connected: Any, tmp_path: Path) -> None:
    before = len(mlflow.MlflowClient().search_logged_models(["0"]))
    gguf = next((connected.folder / "models").rglob("*Q2_K.gguf"))
    with pytest.raises(LineageError, match="names no parent"):
        qg.log_model(gguf, name="orphan", registered_model_name="orphan")
    assert len(mlflow.MlflowClient().search_logged_models(["0"])) == before
    assert "orphan" not in [one.name for one in mlflow.MlflowClient().search_registered_models()]


def test_a_scikit_learn_model_works_as_on_plain_mlflow(connected: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    info = mlflow.sklearn.log_model(model, name="iris", registered_model_name="iris")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("iris", "champion", str(info.registered_model_version))
    client.transition_model_version_stage("iris", str(info.registered_model_version), "Production")
    assert list(mlflow.pyfunc.load_model("models:/iris@champion").predict([[0.0], [1.0]])) == [0, 1]


def test_the_ledger_holds_denials_and_promotions_in_an_unbroken_chain(connected: Any) -> None:
    qg.promote(connected.bare, "@champion")
    gate = require_gate("show its ledger")
    assert gate.ledger(connected.model, 1)[0]["decision"] == "refused"
    assert gate.verify()["ok"] is True


def test_the_app_refuses_to_start_on_an_ungated_store(tmp_path: Path) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "from mlflow_quantgov.pages.app import create_app; create_app()"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin", "_MLFLOW_SERVER_REGISTRY_STORE": "sqlite:///x.db"},
    )
    assert done.returncode == 2
    assert "not gated" in done.stderr and "Fix:" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [[], ["--gunicorn-opts", "--timeout 60"]], ids=["uvicorn", "gunicorn"])
def test_a_server_on_an_ungated_store_ends_and_does_not_try_for_ever(kind: list[str], tmp_path: Path) -> None:
    """Whoever watches over the workers would start another for each that ends."""
    import os
    import subprocess
    import sys

    words = ["server", "--app-name", "quantgov", "--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *words, "--port", str(free_port()), "--workers", "2", *kind],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=tmp_path,
    )
    assert "is not gated" in done.stderr and "Fix: quantgov server" in done.stderr

"""`quantgov audit` and `quantgov db`: what is written, exit codes, and what people are told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from flask import Flask

from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.pages.api import build_api
from mlflow_quantgov.pages.views import build_views

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(
    new_sqlite_database: Callable[[], str], tmp_path: Path, skills: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A gated store with one refusal in its ledger; MLflow is set to it."""
    database = new_sqlite_database()
    mlflow.set_tracking_uri(database)
    mlflow.set_registry_uri(f"quantgov:{database}")
    monkeypatch.chdir(tmp_path)
    made: Any = open_store(f"quantgov:{database}")
    made.create_registered_model("chat")
    made.create_model_version("chat", str(skills))
    with pytest.raises(mlflow.MlflowException, match="quantgov refused"):
        made.set_registered_model_alias("chat", "champion", "1")
    yield made
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def tamper(tmp_path: Path, statement: str) -> None:
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in names:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_checkpoints_find_a_cut_ledger(command: Run, store: Any, tmp_path: Path) -> None:
    command("keys", "new", "auditor")
    code, out, _ = command("audit", "checkpoint", "--key", "auditor.key.pem", "-o", "c.json", "--json")
    assert (code, json.loads(out)["seq"]) == (0, 2)
    check = ("audit", "verify", "--checkpoint", "c.json", "--public-key", "auditor.pub.pem")
    assert command(*check)[0] == 0
    code, _, err = command(*check[:4])
    assert code == 2 and "untrusted key" in err and "--public-key" in err
    assert command("audit", "export", "ledger.jsonl")[0] == 0
    offline = (*check, "--export", "ledger.jsonl")
    assert command(*offline)[0] == 0
    tamper(tmp_path, "DELETE FROM quantgov_ledger WHERE seq = 2")
    code, out, _ = command(*check, "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["rows"], found["first_bad"]) == (4, False, 1, 2)
    assert "rows 2 to 2 are gone" in command(*check)[1]
    lines = Path("ledger.jsonl").read_text().splitlines()
    Path("ledger.jsonl").write_text(lines[0] + "\n")
    assert command(*offline)[0] == 4
    assert command("audit", "verify", "--export", "ledger.jsonl")[0] == 0
    assert command("audit", "verify", "--export", "none.jsonl")[0] == 2


def test_nothing_is_signed_that_does_not_verify(command: Run, store: Any, tmp_path: Path) -> None:
    command("keys", "new", "auditor")
    tamper(tmp_path, "UPDATE quantgov_ledger SET actor = 'mallory' WHERE seq = 1")
    code, _, err = command("audit", "checkpoint", "--key", "auditor.key.pem", "-o", "c.json")
    assert code == 4 and "does not verify" in err and not Path("c.json").exists()
    assert command("audit", "export", "ledger.jsonl")[0] == 4


def test_a_pointer_by_hand_is_named(command: Run, store: Any, tmp_path: Path) -> None:
    tamper(tmp_path, "INSERT INTO registered_model_aliases VALUES ('champion', 1, 'chat', 'default')")
    if not dict(store.get_registered_model("chat").aliases):
        pytest.fail("the columns of MLflow's table changed their order")
    code, out, _ = command("audit", "verify")
    assert code == 4 and "chat @champion at version 1: no row of the ledger" in out and "Fix:" in out
    assert json.loads(command("audit", "verify", "--json")[1])["pointers"][0]["destination"] == "@champion"


def test_a_decision_is_replayed_here_and_offline(command: Run, store: Any) -> None:
    decision = store.quantgov_ledger("chat")[0]["decision_id"]
    assert command("audit", "replay", decision, "-o", "record.json")[0] == 0
    assert json.loads(command("audit", "replay", "--record", "record.json", "--json")[1])["same"] is True
    record = json.loads(Path("record.json").read_text())
    record["body"]["decision"] = "allowed"
    Path("record.json").write_text(json.dumps(record))
    code, out, _ = command("audit", "replay", "--record", "record.json")
    assert code == 4 and "recorded allowed, comes out refused" in out
    record["body"]["engine"] = "0.0.1"
    Path("record.json").write_text(json.dumps(record))
    code, _, err = command("audit", "replay", "--record", "record.json")
    assert code == 2 and "pip install mlflow-quantgov==0.0.1" in err
    for arguments in ((), (decision, "--record", "record.json"), ("nothing",), ("--record", "none.json")):
        assert command("audit", "replay", *arguments)[0] == 2
    for junk in ("", "[]", "{}", json.dumps({**record, "body": []}), json.dumps({**record, "statements": {"a": 1}})):
        Path("record.json").write_text(junk)
        assert command("audit", "replay", "--record", "record.json")[0] == 2


def test_triggers_by_hand(command: Run, store: Any, tmp_path: Path) -> None:
    uri = ("--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert command("db", "triggers", "--status", *uri)[0] == 0
    assert command("db", "triggers", "--remove", *uri)[0] == 0
    code, out, _ = command("db", "triggers", "--status", *uri, "--json")
    assert code == 1 and json.loads(out)["present"] == 0
    assert not store.quantgov_triggers().ok
    assert command("db", "upgrade", *uri)[0] == 0
    assert store.quantgov_triggers().ok
    for arguments in (
        ("triggers", "--remove", "--status", *uri),
        ("triggers", "--backend-store-uri", "mysql://x"),
        ("upgrade", "--backend-store-uri", "sqlite:///empty.db"),
        ("triggers", "--backend-store-uri", "sqlite:///no/such/folder.db"),
        ("roles", "--gate", "a b"),
    ):
        code, _, err = command("db", *arguments)
        assert code == 2 and "Fix:" in err, arguments
    assert "GRANT SELECT, INSERT ON public.quantgov_draws" in command("db", "roles")[1]


def test_the_server_tells_its_workers_to_leave_them_out(monkeypatch: pytest.MonkeyPatch, command: Run) -> None:
    import os

    given: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: given.append(environment))
    command("server", "--port", "0")
    command("server", "--port", "0", "--no-triggers")
    assert [one.get(triggers.OFF) for one in given] == [None, "1"]


def test_over_http(store: Any, tmp_path: Path) -> None:
    app = Flask("test")
    app.register_blueprint(build_api(lambda: store))
    app.register_blueprint(build_views(lambda: store))
    browser = app.test_client()
    decision = store.quantgov_ledger("chat")[0]["decision_id"]
    found = browser.get("/quantgov/api/ledger/verify?rows=1,2,99").get_json()
    assert found["ok"] and sorted(found["hashes"]) == ["1", "2"]
    lines = browser.get("/quantgov/api/ledger/export").text.splitlines()
    assert [json.loads(line).get("seq") for line in lines] == [1, 2, None] and json.loads(lines[2]) == {"rows": 2}
    assert browser.get(f"/quantgov/api/decisions/{decision}/record").get_json()["body"]["decision"] == "refused"
    assert browser.get("/quantgov/api/triggers").get_json()["ok"]
    for bad in (
        "ledger/verify?rows=x",
        "ledger/verify?rows=-1",
        "ledger/verify?rows=99999999999",
        "decisions/x/record",
    ):
        assert browser.get(f"/quantgov/api/{bad}").status_code == 400
    tamper(tmp_path, "INSERT INTO registered_model_aliases VALUES ('champion', 1, 'chat', 'default')")
    assert "Not from here" in browser.get("/quantgov/ledger").text
    tamper(tmp_path, "DELETE FROM quantgov_facts")
    gone = browser.get(f"/quantgov/api/decisions/{decision}/record")
    assert gone.status_code == 400 and gone.get_json()["error"]["exit_code"] == 4

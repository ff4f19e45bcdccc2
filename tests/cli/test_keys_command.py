"""`quantgov keys`, `--key` and `quantgov waive`: files, exit codes, and what people are told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from mlflow_quantgov.cli.dates import end, start
from mlflow_quantgov.cli.server_command import build_environment
from mlflow_quantgov.errors import MissingExtraError, PolicyError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return command


def test_a_key_is_made_trusted_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    made = json.loads(run("keys", "new", "ada", "--out", "keys", "--json")[1])
    assert made["private_key"] == "keys/ada.key.pem" and made["id"].startswith("sha256:")
    code, out, _ = run("keys", "trust", "keys/ada.pub.pem", "--name", "ada", "--role", "measurer", "--role", "approver",
                       "--until", "2999-12-31")  # fmt: skip
    assert code == 0 and f"ada is trusted as measurer and approver: {made['id']}" in out and "restart" in out
    listed = json.loads(run("keys", "list", "--json")[1])
    (one,) = listed["keys"]
    assert (one["id"], one["standing"], one["until"]) == (made["id"], "valid", "2999-12-31T23:59:59Z")
    assert build_environment(None, tmp_path / "keys.yaml")["QUANTGOV_KEYS"] == str(tmp_path / "keys.yaml")
    digits = made["id"].removeprefix("sha256:")[:8]
    assert run("keys", "revoke", digits, "--reason", "laptop lost")[0] == 0
    changed = json.loads(run("keys", "list", "--json")[1])
    assert changed["keys"][0]["standing"] == "revoked" and changed["digest"] != listed["digest"]
    assert "revoked" in run("keys", "list")[1]
    code, _, err = run("keys", "revoke", digits, "--reason", "again")
    assert code == 2 and "was revoked on" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["keys", "new", "ada"], "exists"),
        (["keys", "new", "../x"], "cannot be the name of a key"),
        (["keys", "trust", "ada.pub.pem", "--name", "x", "--role", "measurer"], "is in keys.yaml already"),
        (["keys", "trust", "ada.key.pem", "--name", "x", "--role", "measurer"], "is a private key"),
        (["keys", "trust", "none.pem", "--name", "x", "--role", "measurer"], "does not exist"),
        (["keys", "trust", "eve.pub.pem", "--name", "x", "--role", "boss"], "boss"),
        (["keys", "trust", "eve.pub.pem", "--name", "a\nb", "--role", "waiver"], "one line"),
        (["keys", "trust", "eve.pub.pem", "--name", "x", "--role", "waiver", "--until", "soon"], "is no date"),
        (["keys", "trust", "eve.pub.pem", "--name", "x", "--role", "waiver", "--until", "2001-01-01"], "before it begins"),
        (["keys", "revoke", "sha256:", "--reason", "x"], "No trusted keys"),
        (["keys", "revoke", "zz", "--reason", "x"], "No trusted keys"),
        (["keys", "list", "--file", "none.yaml"], "cannot be read"),
        (["server", "--keys", "none.yaml"], "cannot be read"),
        (["attach", "models:/a/1", "s.json", "--key", "none.pem"], "does not exist"),
        (["waive", "models:/a/1", "identity", "--reason", "x", "--until", "2999-01-01"], "cannot be waived"),
        (["waive", "models:/a/1", "benchmrk", "--reason", "x", "--until", "2999-01-01"], "cannot be waived"),
        (["waive", "models:/a/1", "benchmark", "--reason", " ", "--until", "2999-01-01"], "needs a reason"),
        (["waive", "models:/a/1", "benchmark", "--reason", "x", "--until", "2001-01-01"], "still to come"),
        (["waive", "models:/a/1", "benchmark", "--reason", "x", "--until", "2999-01-01"], "no key was named"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error_and_changes_nothing(
    run: Run, tmp_path: Path, arguments: list[str], words: str
) -> None:
    for name in ("ada", "eve"):
        run("keys", "new", name)
    run("keys", "trust", "ada.pub.pem", "--name", "ada", "--role", "measurer")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    code, out, err = run(*arguments)
    assert code == 2 and words in " ".join(err.split()) and "Fix:" in err and "Traceback" not in out + err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_without_the_library_the_extra_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("keys", "new", "ada")
    run("keys", "trust", "ada.pub.pem", "--name", "ada", "--role", "measurer")
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    code, _, err = run("keys", "new", "eve")
    assert code == 2 and "pip install 'mlflow-quantgov[sign]'" in err
    with pytest.raises(MissingExtraError):
        build_environment(None, tmp_path / "keys.yaml")


def test_a_wrong_keys_file_starts_no_server(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("schema: quantgov/keys/v1\nkeyz: []\n")
    with pytest.raises(PolicyError, match="did you mean 'keys'"):
        build_environment(None, tmp_path / "keys.yaml")


def test_an_end_is_the_end_of_its_day_and_a_time_is_itself() -> None:
    assert end("2026-01-31") == datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    assert end("2026-01-31T12:00:00+01:00") == datetime(2026, 1, 31, 11, tzinfo=UTC)
    assert start("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert end("2026-01-31T12:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def gated(
    run: Run, skills: Path, new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """The same against a gated store with a parent, whose policy wants a signed archive and drill."""
    policy: dict[str, Any] = {
        "schema": "quantgov/policy/v1",
        "name": "signed",
        "gates": {"full": {"checks": ["identity", "rollback-archive"], "signed": {"*": "measurer"}}},
        "rules": [{"models": "*", "destinations": {"@champion": "full"}}],
    }
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    for name, role in (("ada", "measurer"), ("bob", "waiver")):
        run("keys", "new", name)
        run("keys", "trust", f"{name}.pub.pem", "--name", name, "--role", role)
    run("keys", "new", "eve")
    database = new_sqlite_database()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"quantgov:{database}")
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    monkeypatch.setenv("QUANTGOV_KEYS", str(tmp_path / "keys.yaml"))
    monkeypatch.setenv("QUANTGOV_ARCHIVE", str(tmp_path / "archive"))
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    code, _, err = run("log-parent", str(skills), "--name", "parent", "--register", "chat")
    assert code == 0, err
    return run


def test_a_measurement_is_signed_copied_and_counts_and_the_rest_is_waived_in_red(
    gated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = "models:/chat/1"
    assert gated("archive", uri, "--key", "eve.key.pem")[0] == 0
    assert "it counts as unsigned" in caplog.text and "quantgov keys trust" in caplog.text
    caplog.clear()
    code, out, _ = gated("check", uri, "--to", "@champion")
    words = " ".join(out.split())
    assert (
        code == 3 and "signed by the untrusted key" in words and f"quantgov archive {uri} --key NAME.key.pem" in words
    )
    source = mlflow.MlflowClient().get_model_version("chat", "1").source
    beside = Path(mlflow.get_logged_model(source.removeprefix("models:/")).artifact_location.removeprefix("file://"))
    (copy,) = beside.rglob("quantgov/evidence/archive-*.dsse.json")
    monkeypatch.setenv("QUANTGOV_SIGNING_KEY", str(tmp_path / "ada.key.pem"))
    assert gated("archive", uri)[0] == 0
    assert caplog.text == ""
    # The envelope of somebody else is attached as it is, whatever key this shell would sign with.
    attached = json.loads(gated("attach", uri, str(copy), "--json")[1])
    assert [one["standing"] for one in attached["signed_by"]] == ["untrusted"]
    code, _, err = gated("attach", uri, str(copy), "--key", "ada.key.pem")
    assert code == 2 and "signed already" in err
    code, out, _ = gated("check", uri, "--to", "@champion", "--json")
    (found,) = [one for one in json.loads(out)["checks"] if one["check"] == "rollback-archive"]
    assert code == 3 and "no restore drill" in found["reason"]
    code, _, err = gated("waive", uri, "rollback-archive", "--reason", "drill on Thursday", "--until", "2999-01-01")
    assert code == 2 and "has not the role waiver but measurer" in " ".join(err.split())
    code, out, _ = gated(
        "waive",
        uri,
        "rollback-archive",
        "--reason",
        "drill on Thursday",
        "--until",
        "2999-01-01",
        "--key",
        "bob.key.pem",
    )
    assert code == 0 and "waived" in out
    code, out, _ = gated("promote", uri, "--to", "@champion")
    assert code == 0 and "with rollback-archive waived" in " ".join(out.split())
    assert json.loads(gated("audit", "log", "--json")[1])["rows"][0]["waived"] == ["rollback-archive"]
    # "What if" with a policy of one's own believes whom the gate believes.
    code, out, _ = gated("check", uri, "--to", "@champion", "--policy", "policy.yaml", "--json")
    assert code == 0 and json.loads(out)["policy"]["what_if"]
    assert gated("report", uri, "-o", "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "with rollback-archive waived" in page and re.search(r'class="pass">ada<', page)


def test_doctor_says_whose_signatures_count(gated: Run, tmp_path: Path) -> None:
    assert "2 trusted" in " ".join(gated("doctor")[1].split())
    (tmp_path / "keys.yaml").write_text("schema: quantgov/keys/v1\nkeys: []\n")
    code, out, _ = gated("doctor")
    words = " ".join(out.split())
    assert code == 1 and "wants signatures by a measurer, and no key has that role" in words

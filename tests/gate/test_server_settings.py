"""What a server is started with: nothing that would take the gate or the login out of the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_quantgov.cli.server_command import build_command, build_environment
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.gate.doors.supported import UnsupportedMlflowError, check_server_settings

APP = "from mlflow_quantgov.pages.{app} import create_app; create_app()"


def run(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program with these variables, and none of MLflow's besides."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "QUANTGOV", "_MLFLOW"))}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=kept | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS", "MLFLOW_ENABLE_REMOTE_ASSISTANT"])
def test_a_server_on_which_clients_run_code_does_not_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_server_settings()
    monkeypatch.setenv(name, "false")
    check_server_settings()
    for value in ("true", "TRUE", "1"):
        monkeypatch.setenv(name, value)
        with pytest.raises(UnsupportedMlflowError, match=rf"{name} is set.*Fix: unset {name}"):
            check_server_settings()


@pytest.mark.slow
@pytest.mark.parametrize("app", ["app", "auth_app"])
def test_an_app_on_such_a_server_ends_with_the_reason(app: str, tmp_path: Path) -> None:
    store = f"quantgov:sqlite:///{tmp_path / 'mlflow.db'}"
    done = run(
        APP.format(app=app), tmp_path, _MLFLOW_SERVER_REGISTRY_STORE=store, MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS="true"
    )
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and "Fix: unset MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS" in line


@pytest.mark.slow
def test_an_mlflow_that_nobody_judged_ends_with_the_reason(tmp_path: Path) -> None:
    """A registry with one more method, as a later MLflow may bring it."""
    code = (
        "from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Store\n"
        "Store.move_aliases = lambda self, name, to: None\n"
    ) + APP.format(app="app")
    done = run(code, tmp_path, _MLFLOW_SERVER_REGISTRY_STORE=f"quantgov:sqlite:///{tmp_path / 'mlflow.db'}")
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert "nobody has judged: move_aliases" in line and "Fix: pip install" in line


@pytest.mark.slow
def test_a_prefix_that_takes_the_login_away_does_not_start(tmp_path: Path) -> None:
    code = "from mlflow_quantgov.cli import main; main()"
    variables = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "s", "MLFLOW_AUTH_ADMIN_PASSWORD": "a password of twenty"}
    argv = "import sys; sys.argv[1:] = ['server', '--basic-auth', '--static-prefix', '/static-ml', '--port', '0']\n"
    done = run(argv + code, tmp_path, **variables)
    assert done.returncode == 2
    assert "begins like a path that MLflow serves without a login" in done.stderr
    done = run(argv.replace("/static-ml", "/ml") + code, tmp_path, MLFLOW_FLASK_SERVER_SECRET_KEY="s")
    assert done.returncode == 2
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" in done.stderr and "Traceback" not in done.stderr


def test_what_the_server_starts_finds_the_gate() -> None:
    """MLflow's jobs open the registry by this variable, or else the tracking database, which is not gated."""
    uri = "postgresql+psycopg://db/mlflow"
    assert build_environment(None, None, uri)["MLFLOW_REGISTRY_URI"] == f"quantgov:{uri}"
    assert "quantgov-auth" in build_command(uri, [], basic_auth=True)
    assert "quantgov" in build_command(uri, [])
    with pytest.raises(UsageError, match=r"--app-name cannot be given.*Fix: quantgov server --basic-auth"):
        build_command(uri, ["--app-name", "basic-auth"])

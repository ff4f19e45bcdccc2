"""A login that is not MLflow's own: a reverse proxy signs people in, and MLflow's `authorization_function` takes its header."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROXY = """
from flask import Response, request
from werkzeug.datastructures import Authorization

def who():
    name = request.headers.get("X-Proxy-User")
    return Authorization("basic", {"username": name, "password": ""}) if name else Response("sign in", 401)
"""
SETTINGS = """
[mlflow]
default_permission = READ
database_uri = sqlite:///auth.db
admin_username = admin
admin_password = a password of twenty
authorization_function = proxy:who
"""
PROGRAM = """
import json
from mlflow_quantgov.pages.auth_app import create_app

client = create_app().test_client()
signed_in, api = {"X-Proxy-User": "admin"}, "/api/2.0/mlflow/registered-models"
without = [client.get(f"/quantgov/{path}").status_code for path in ("", "ledger", "api/status", "api/ledger")]
without.append(client.post("/quantgov/api/statements", json={}).status_code)
without.append(client.get("/quantgov/api/status", headers={"Authorization": "Basic YWRtaW46eA=="}).status_code)
for method, path in (("POST", "create"), ("DELETE", "alias")):
    answer = client.open(f"{api}/{path}", method=method, json={"name": "chat", "alias": "champion"}, headers=signed_in)
    assert answer.status_code == 200, answer.text
row = client.get("/quantgov/api/ledger?model=chat", headers=signed_in).json["rows"][0]
from_elsewhere = signed_in | {"Origin": "http://elsewhere.example"}
foreign = [client.post(f"/quantgov/api/{path}", json={}, headers=from_elsewhere).status_code for path in ("check", "draws")]
print(json.dumps({"without": without, "foreign": foreign, "actor": row["actor"], "source": row["actor_source"]}))
"""


@pytest.mark.slow
def test_who_a_proxy_signed_in_is_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "proxy.py").write_text(PROXY)
    (tmp_path / "auth.ini").write_text(SETTINGS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "QUANTGOV", "_MLFLOW"))}
    variables = {
        "_MLFLOW_SERVER_FILE_STORE": "sqlite:///mlflow.db",
        "_MLFLOW_SERVER_REGISTRY_STORE": "quantgov:sqlite:///mlflow.db",
        "_MLFLOW_SGI_NAME": "gunicorn",
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "s",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=tmp_path, env=kept | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(seen["without"]) == {401}
    assert set(seen["foreign"]) == {403}  # a browser would send the login along
    assert (seen["actor"], seen["source"]) == ("admin", "authorization function")

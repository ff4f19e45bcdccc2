"""Workspaces keep their artifacts below folders of their own, which the server puts in front of every path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent))
from artifact_servers import server


@pytest.mark.slow
def test_a_model_of_another_workspace_is_not_written_over(tmp_path: Path, _mlflow_tables: Path) -> None:
    with server(tmp_path, "--enable-workspaces", gated=True, tables=_mlflow_tables) as one:

        def ask(method: str, route: str, workspace: str, **rest: object) -> requests.Response:
            headers = {"X-MLFLOW-WORKSPACE": workspace}
            return requests.request(method, f"{one.url}/api/{route}", headers=headers, timeout=60, **rest)  # type: ignore[arg-type]

        assert ask("POST", "3.0/mlflow/workspaces", "default", json={"name": "team"}).ok
        for workspace in ("team", "default"):
            made = ask("POST", "2.0/mlflow/experiments/create", workspace, json={"name": "e"}).json()
            run = ask("POST", "2.0/mlflow/runs/create", workspace, json={"experiment_id": made["experiment_id"]}).json()
            info = run["run"]["info"]
            place = info["artifact_uri"].removeprefix("mlflow-artifacts:/") + "/model"
            path = f"2.0/mlflow-artifacts/artifacts/{place}/weights.bin"
            assert ask("PUT", path, workspace, data=b"as registered").ok
            assert ask("POST", "2.0/mlflow/registered-models/create", workspace, json={"name": "m"}).ok
            version = {"name": "m", "source": f"runs:/{info['run_id']}/model", "run_id": info["run_id"]}
            answer = ask("POST", "2.0/mlflow/model-versions/create", workspace, json=version)
            assert answer.ok, answer.text
            # The server puts the workspace in front of a path without one; of the default workspace it leaves it bare.
            short = path.replace(f"workspaces/{workspace}/", "")
            for attempt in (path, short) if workspace != "default" else (path,):
                assert ask("PUT", attempt, workspace, data=b"changed").status_code == 403
                assert ask("DELETE", attempt, workspace).status_code == 403
        files = [path.read_bytes() for path in one.artifacts.rglob("weights.bin")]
        assert files == [b"as registered"] * 2

"""Every route of MLflow's server was judged: a new MLflow that adds one fails here, before it is a door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlflow_quantgov.gate.doors.methods import DOORS, READS
from mlflow_quantgov.gate.doors.supported import TESTED

pytestmark = pytest.mark.slow

JUDGED: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "mlflow-routes.yaml").read_text(encoding="utf-8")
)
VERDICT = {route: verdict for verdict, routes in JUDGED.items() for route in routes}


@pytest.fixture(scope="module")
def installed() -> dict[str, Any]:
    """Routes of the installed MLflow."""
    program = Path(__file__).parent / "list_routes.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def test_no_route_is_judged_twice() -> None:
    assert len(VERDICT) == sum(len(routes) for routes in JUDGED.values())


def test_every_route_was_judged(installed: dict[str, Any]) -> None:
    assert sorted(set(installed["routes"]) - set(VERDICT)) == []
    if installed["version"] == TESTED[-1]:
        assert sorted(set(VERDICT) - set(installed["routes"])) == []


def test_a_route_has_the_verdict_of_what_it_comes_to(installed: dict[str, Any]) -> None:
    """Read from the code of MLflow's handlers: the methods of the store behind a route are those that were judged."""
    reached = set()
    for route, methods in installed["routes"].items():
        changing = set(methods) & set(DOORS)
        reached |= changing
        assert changing or VERDICT[route] not in {"gated", "recorded", "open"}, route
        assert {DOORS[name] for name in changing} <= {VERDICT[route]}, (route, changing)
    # What the server reaches, and how: the other methods of the store are called by clients' code only.
    assert {name for name, verdict in DOORS.items() if verdict == "gated"} & reached == {
        "set_registered_model_alias",
        "transition_model_version_stage",
        "create_model_version",
    }


def test_what_reads_comes_to_no_method_that_changes(installed: dict[str, Any]) -> None:
    for route, methods in installed["routes"].items():
        if VERDICT[route] in {"reads", "elsewhere", "files", "code", "login"}:
            assert not set(methods) & set(DOORS), route
    assert any(set(methods) & READS for methods in installed["routes"].values())


def test_graphql_changes_nothing(installed: dict[str, Any]) -> None:
    """MLflow files two searches under its mutations; the third gives back what it was sent."""
    assert installed["mutations"] == ["mlflowSearchDatasets", "mlflowSearchRuns", "testMutation"]

"""Every door, through every way, on servers of every kind: open on plain MLflow, closed here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from door_servers import Kind, Server, serve
from door_ways import WAYS, RefusedError, Way, environment
from doors import DOORS, Door

import mlflow_quantgov as qg

pytestmark = pytest.mark.slow

PLAIN = Kind("plain MLflow", gated=False)
GATED = (
    Kind("uvicorn, SQLite"),
    Kind("gunicorn, PostgreSQL", database="postgres", gunicorn=True),
    Kind("uvicorn, SQLite, workspaces, prefix", workspaces=True, prefix="/models"),
    Kind("uvicorn, PostgreSQL, login", database="postgres", login=True),
    Kind("gunicorn, SQLite, login, workspaces, prefix", gunicorn=True, login=True, workspaces=True, prefix="/ml"),
)


def _served(kind: Kind, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = factory.mktemp("doors")
    postgres = kind.database == "postgres"
    database = request.getfixturevalue("new_postgres_database")() if postgres else f"sqlite:///{folder / 'mlflow.db'}"
    skills = Path(qg.__file__).parent / "demo" / "models" / "skills"
    with serve(kind, folder, database, skills) as server:
        yield server


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Plain MLflow."""
    yield from _served(PLAIN, request, tmp_path_factory)


@pytest.fixture(scope="module", params=GATED, ids=lambda kind: kind.name)
def gated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gated server of each kind."""
    yield from _served(request.param, request, tmp_path_factory)


def _client_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(server.url)


@pytest.fixture(autouse=True)
def _forget_the_server() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_door_is_open_on_plain_mlflow(plain: Server, way: type[Way], monkeypatch: pytest.MonkeyPatch) -> None:
    _client_of(plain, monkeypatch)
    closed = []
    for door in DOORS:
        try:
            door.knock(way(plain), plain)
        except RefusedError as error:
            closed.append(f"{door.key}: {error}")
    assert not closed, "\n".join(closed)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_door_is_closed_here(gated: Server, way: type[Way], monkeypatch: pytest.MonkeyPatch) -> None:
    _client_of(gated, monkeypatch)
    wrong = [found for door in DOORS if (found := _goes_wrong(door, way(gated), gated)) is not None]
    assert not wrong, "\n".join(wrong)
    protected = [
        f"{model['name']}@{one['alias']}"
        for model in _models(gated)
        if model["name"].startswith("chat")
        for one in model.get("aliases", [])
        if one["alias"] != "candidate"
    ]
    assert protected == []


def _goes_wrong(door: Door, way: Way, server: Server) -> str | None:
    """What is wrong with how a door was answered; None where it was refused as it should be."""
    try:
        door.knock(way, server)
    except RefusedError as error:
        message = error.message
        if error.status not in door.status or "quantgov refused" not in message:
            return f"{door.key}: refused otherwise: {error}"
        return None
    return f"{door.key}: went through"


def _models(server: Server) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    token = ""
    while True:
        query = {"max_results": "1000", "page_token": token}
        page = server.call("GET", "/api/2.0/mlflow/registered-models/search", params=query).json()
        found += page.get("registered_models", [])
        token = page.get("next_page_token", "")
        if not token:
            return found

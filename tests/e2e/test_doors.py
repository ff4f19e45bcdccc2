"""Every door, through every way, on servers of every kind: open on plain MLflow, closed here."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import requests
from door_servers import ADMIN, HEADER, WORKSPACE, Kind, Server, add_run, serve, write_small
from door_ways import WAYS, RefusedError, Rest, Way, environment
from doors import DOORS, Door, unmeasured

import mlflow_quantgov as qg
from mlflow_quantgov.errors import UnreachableError
from mlflow_quantgov.gate.clients.finding import require_gate
from mlflow_quantgov.gate.doors.actor import VERIFIED

pytestmark = pytest.mark.slow

PLAIN = Kind("plain MLflow", gated=False, workspaces=True)
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
    for door in filter(lambda door: door.is_open_on_plain_mlflow, DOORS):
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
        said = "quantgov refused" if door.is_open_on_plain_mlflow else ""  # else MLflow was first
        if error.status not in door.status or said not in message:
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


def test_who_asked_is_known_only_behind_a_login(gated: Server) -> None:
    """Without a login a name in a request is a claim; behind one it was checked, and a false one gets nowhere."""
    way, name = Rest(gated), ""
    if gated.kind.login:
        name = unmeasured(way, gated)
        with pytest.raises(RefusedError):
            way.alias(name, "champion", "1")
        row = _ledger(gated, name)[0]
        assert (row["actor"], row["actor_source"]) == (ADMIN[0], "basic-auth")
        assert row["actor_source"] in VERIFIED
        gated.session.auth = (ADMIN[0], "not the password")
        try:
            assert gated.call("POST", f"{way.api}/registered-models/alias", {"name": name}).status_code == 401
            assert gated.call("GET", "/quantgov/api/ledger").status_code == 401
        finally:
            gated.session.auth = ADMIN
        assert len(_ledger(gated, name)) == 1
        return
    for forged in (ADMIN, ("boss", "")):
        gated.session.auth = forged
        headers = {"X-Forwarded-User": "boss", "X-Remote-User": "boss", "Remote-User": "boss"}
        try:
            name = unmeasured(way, gated)
            body = {"name": name, "alias": "champion", "version": "1"}
            assert gated.call("POST", f"{way.api}/registered-models/alias", body, headers=headers).status_code == 403
        finally:
            gated.session.auth = None
        row = _ledger(gated, name)[0]
        assert (row["actor"], row["actor_source"]) == (forged[0], "http, not verified")
        assert row["actor_source"] not in VERIFIED


def _ledger(server: Server, name: str) -> list[dict[str, str]]:
    answer = server.call("GET", "/quantgov/api/ledger", params={"model": name})
    return list(answer.json()["rows"])


ROUTES = (
    ("GET", "/quantgov/"),
    ("GET", "/quantgov/ledger"),
    ("GET", "/quantgov/models/chat"),
    ("GET", "/quantgov/models/chat/versions/1"),
    ("GET", "/quantgov/api/status"),
    ("GET", "/quantgov/api/policy"),
    ("GET", "/quantgov/api/keys"),
    ("GET", "/quantgov/api/ledger"),
    ("GET", "/quantgov/api/ledger/verify"),
    ("POST", "/quantgov/api/check"),
    ("POST", "/quantgov/api/statements"),
    ("POST", "/quantgov/api/draws"),
)


def test_our_own_routes_ask_for_the_login(gated: Server) -> None:
    root = gated.url.removesuffix(gated.kind.prefix)
    for base in {root, gated.url}:
        for method, path in ROUTES:
            headers = {HEADER: WORKSPACE} if gated.kind.workspaces else {}
            answer = requests.request(method, f"{base}{path}", json={}, headers=headers, timeout=60)
            assert (answer.status_code == 401) is gated.kind.login, (method, base, path, answer.status_code)


def test_a_reader_reads_and_does_no_more(gated: Server) -> None:
    """MLflow's permissions on a registered model hold on our routes too."""
    if not gated.kind.login:
        return
    way = Rest(gated)
    open_to_read, closed = unmeasured(way, gated), unmeasured(way, gated)
    with pytest.raises(RefusedError):
        way.alias(closed, "champion", "1")
    reader = ("reader", "another password of twenty")
    gated.call(
        "POST", "/api/2.0/mlflow/users/create", {"username": reader[0], "password": reader[1]}
    ).raise_for_status()
    for name, permission in ((open_to_read, "READ"), (closed, "DENY")):
        _grant(gated, reader[0], name, permission)
    denial = _ledger(gated, closed)[0]["decision_id"]
    body = {"name": open_to_read, "version": "1"}
    shown, hidden = body | {"to": "@champion"}, {"name": closed, "version": "1", "to": "@champion"}
    gated.session.auth = reader
    try:
        assert gated.call("GET", "/quantgov/api/status").status_code == 200
        assert gated.call("POST", "/quantgov/api/check", shown).json()["decision"] == "refused"
        assert gated.call("GET", f"/quantgov/models/{open_to_read}").status_code == 200
        for method, path, sent in (
            ("POST", "/quantgov/api/statements", body | {"statement": "{}"}),
            ("POST", "/quantgov/api/draws", body),
            ("POST", "/quantgov/api/check", hidden),
            ("GET", f"/quantgov/models/{closed}", None),
            ("GET", f"/quantgov/models/{closed}/versions/1", None),
            ("GET", f"/quantgov/decisions/{denial}", None),
            ("GET", f"/quantgov/api/decisions/{denial}", None),
            ("POST", f"{way.api}/registered-models/alias", body | {"alias": "champion"}),
        ):
            answer = gated.call(method, path, sent)
            assert answer.status_code == 403, (method, path, answer.status_code, answer.text[:300])
        assert closed not in {row["model"] for row in gated.call("GET", "/quantgov/api/ledger").json()["rows"]}
        for page in ("/quantgov/", "/quantgov/ledger"):
            text = gated.call("GET", page).text
            assert closed not in text and "<html" in text
    finally:
        gated.session.auth = ADMIN


def test_a_reader_of_one_workspace_reads_nothing_of_another(gated: Server) -> None:
    """Both have a model of the same name, and the ledger is one for all of them."""
    if not (gated.kind.login and gated.kind.workspaces):
        return
    way = Rest(gated)
    name = unmeasured(way, gated)
    reader = (f"reader-{uuid.uuid4().hex[:6]}", "another password of twenty")
    gated.call(
        "POST", "/api/2.0/mlflow/users/create", {"username": reader[0], "password": reader[1]}
    ).raise_for_status()
    _grant(gated, reader[0], name, "READ")
    with pytest.raises(RefusedError):
        way.alias(name, "champion", "1")
    own = _ledger(gated, name)[0]["decision_id"]
    with _second_workspace(gated):
        way.create(name)
        source, run_id = add_run(gated, lambda place: shutil.copytree(gated.source, place))
        way.version(name, source, run_id)
        with pytest.raises(RefusedError):
            way.alias(name, "champion", "1")
        _grant(gated, reader[0], name, "DENY")
        others = _ledger(gated, name)[0]["decision_id"]
    gated.session.auth = reader
    try:
        for path in ("/quantgov/api/ledger", f"/quantgov/api/ledger?model={name}"):
            seen = {row["decision_id"] for row in gated.call("GET", path).json()["rows"]}
            assert own in seen and others not in seen
        for path in ("/quantgov/decisions", "/quantgov/api/decisions"):
            assert gated.call("GET", f"{path}/{own}").status_code == 200
            assert gated.call("GET", f"{path}/{others}").status_code == 403
    finally:
        gated.session.auth = ADMIN


def _grant(server: Server, user: str, name: str, permission: str) -> None:
    body = {"username": user, "resource_type": "registered_model", "resource_id": name, "permission": permission}
    answer = server.call("POST", "/api/3.0/mlflow/users/permissions/grant", body)
    assert answer.ok, answer.text


def test_a_client_finds_the_gate(gated: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a login, below a prefix and in a workspace as well."""
    _client_of(gated, monkeypatch)
    name = unmeasured(Rest(gated), gated)
    decision = qg.check(f"models:/{name}/1", "@champion")
    assert not decision.allowed
    if gated.kind.login:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
        with pytest.raises(UnreachableError, match=r"wants you to sign in.*Fix: export MLFLOW_TRACKING_USERNAME"):
            require_gate("show its ledger")


@pytest.mark.parametrize("mode", ["CASCADE", "SET_DEFAULT"])
def test_a_workspace_with_a_gated_pointer_goes_on_plain_mlflow(plain: Server, mode: str) -> None:
    with _second_workspace(plain) as workspace:
        answer = plain.call("DELETE", f"/api/3.0/mlflow/workspaces/{workspace}", params={"mode": mode})
        assert answer.status_code == 204, answer.text


def test_a_workspace_with_a_gated_pointer_is_not_deleted(gated: Server) -> None:
    """MLflow deletes a workspace, or moves what is in it, past the registry's store."""
    if not gated.kind.workspaces:
        return
    with _second_workspace(gated) as workspace:
        for api in ("api", "ajax-api"):
            for mode in ("CASCADE", "SET_DEFAULT"):
                path = f"/{api}/3.0/mlflow/workspaces/{workspace}"
                answer = gated.call("DELETE", path, params={"mode": mode})
                assert answer.status_code == 403 and "quantgov refused" in answer.text
        [model] = [one for one in _models(gated) if one["name"] == f"iris-{workspace}"]
        gated.call("DELETE", f"{Rest.api}/registered-models/alias", {"name": model["name"], "alias": "champion"})
        # What was let through once is deleted by its name, so that the ledger says so.
        answer = gated.call("DELETE", f"/api/3.0/mlflow/workspaces/{workspace}", params={"mode": "CASCADE"})
        assert answer.status_code == 403 and f"Fix: delete {model['name']} first" in answer.text
        gated.call("DELETE", f"{Rest.api}/registered-models/delete", {"name": model["name"]}).raise_for_status()
        answer = gated.call("DELETE", f"/api/3.0/mlflow/workspaces/{workspace}", params={"mode": "CASCADE"})
        assert answer.status_code == 204, answer.text


def test_a_logged_model_with_a_version_goes_on_plain_mlflow(plain: Server) -> None:
    model_id, _ = _registered_model(plain)
    answer = plain.call("DELETE", f"/api/2.0/mlflow/logged-models/{model_id}")
    assert answer.status_code == 200, answer.text


def test_a_logged_model_with_a_version_is_not_deleted(gated: Server) -> None:
    """MLflow deletes it in the tracking store, and then nobody who asks for the version by it finds its files."""
    for named_by in ("models:/{id}", "{location}", "{location}/model", "runs:/{run}/m", "runs:/{run}/m/model"):
        model_id, name = _registered_model(gated, named_by)
        for api in ("api", "ajax-api"):
            path = f"/{api}/2.0/mlflow/logged-models/{model_id}"
            if gated.kind.login:
                assert requests.delete(f"{gated.url}{path}", timeout=60).status_code == 401
            answer = gated.call("DELETE", path)
            assert answer.status_code == 403, f"{named_by}: {answer.text}"
            said = answer.json()["message"]
            assert said.startswith(f"quantgov refused: logged model {model_id} cannot be deleted, because ")
            assert "Fix: " in said and "\n" not in said
            assert gated.call("DELETE", f"{path}/tags/team").status_code == (200 if api == "api" else 404)
        assert gated.call("GET", path).status_code == 200
        if named_by.startswith("models:"):
            assert f"{name} version 1 was made from it" in said
            assert [row["version"] for row in _ledger(gated, name) if row["kind"] == "denial"] == ["1", "1"]
        gated.call("DELETE", f"{Rest.api}/model-versions/delete", {"name": name, "version": "1"}).raise_for_status()
        assert gated.call("DELETE", path).status_code == 200
        assert gated.call("DELETE", path).status_code == 404


def _registered_model(server: Server, named_by: str = "models:/{id}") -> tuple[str, str]:
    """A LoggedModel from which version 1 of a model was made: its id, and that model's name."""
    _, run_id = add_run(server, write_small)
    run = server.call("GET", f"{Rest.api}/runs/get", params={"run_id": run_id}).json()["run"]["info"]
    body = {
        "experiment_id": run["experiment_id"],
        "name": "m",
        "source_run_id": run_id,
        "tags": [{"key": "team", "value": "a"}],
    }
    made = server.call("POST", f"{Rest.api}/logged-models", body)
    made.raise_for_status()
    info = made.json()["model"]["info"]
    place = Path(info["artifact_uri"].removeprefix("file://"))
    place.mkdir(parents=True)
    write_small(place / "model")
    model_id, name = info["model_id"], f"iris-{uuid.uuid4().hex[:6]}"
    Rest(server).create(name)
    source = named_by.format(id=model_id, location=place, run=run_id)
    version = {
        "name": name,
        "source": source,
        "run_id": run_id,
        "model_id": None if source.startswith("runs:") else model_id,
    }
    created = server.call("POST", f"{Rest.api}/model-versions/create", version)
    assert created.ok, created.text
    return model_id, name


@contextmanager
def _second_workspace(server: Server) -> Iterator[str]:
    """A workspace of its own in which version 1 of a model stands at a gated alias; requests go to it meanwhile."""
    workspace = f"team-{uuid.uuid4().hex[:6]}"
    server.call("POST", "/api/3.0/mlflow/workspaces", {"name": workspace}).raise_for_status()
    server.session.headers[HEADER] = workspace
    try:
        source, run_id = add_run(server, write_small)
        way, name = Rest(server), f"iris-{workspace}"
        way.create(name)
        way.version(name, source, run_id)
        way.alias(name, "champion", "1")
        yield workspace
    finally:
        server.session.headers[HEADER] = WORKSPACE

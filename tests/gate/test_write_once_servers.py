"""Every way to change a registered model's files through a server: open on plain MLflow, closed on a gated one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent))
from artifact_servers import FILES, Logged, Server, logged_model, run_model, server

pytestmark = pytest.mark.slow
WEIGHTS = "model/weights.skops"


@pytest.fixture(scope="module", params=["uvicorn", "gunicorn"])
def kind(request: pytest.FixtureRequest) -> str:
    """What serves: uvicorn takes uploads by a native route, gunicorn by Flask, here behind a static prefix."""
    return str(request.param)


def _started(kind: str, tmp: Path, tables: Path, gated: bool) -> Any:
    prefix = "/ml" if kind == "gunicorn" else ""
    return server(tmp, gated=gated, gunicorn=kind == "gunicorn", prefix=prefix, tables=tables)


@pytest.fixture(scope="module")
def plain(kind: str, tmp_path_factory: pytest.TempPathFactory, _mlflow_tables: Path) -> Iterator[Server]:
    with _started(kind, tmp_path_factory.mktemp("plain"), _mlflow_tables, False) as started:
        yield started


@pytest.fixture(scope="module")
def gated(kind: str, tmp_path_factory: pytest.TempPathFactory, _mlflow_tables: Path) -> Iterator[Server]:
    with _started(kind, tmp_path_factory.mktemp("gated"), _mlflow_tables, True) as started:
        yield started


Attack = Callable[[Logged], Any]


def put(model: Logged) -> Any:
    return model.server.put(f"{model.place}/{WEIGHTS}", b"changed")


def put_by_the_ui(model: Logged) -> Any:
    """The UI's own address, which a static prefix moves."""
    return model.server.put(f"{model.place}/{WEIGHTS}", b"changed", api="ajax-api", host=model.server.url)


def put_by_the_ui_at_the_root(model: Logged) -> Any:
    api = "ajax-api" if model.server.url == model.server.host else "api"
    return model.server.put(f"{model.place}/{WEIGHTS}", b"changed", api=api)


def put_encoded(model: Logged) -> Any:
    return _raw(model.server, "PUT", f"{model.place}/model%2Fweights%2Eskops", b"changed")


def put_encoded_twice(model: Logged) -> Any:
    return _raw(model.server, "PUT", f"{model.place}/model%252Fweights%252Eskops", b"changed")


def delete_through_a_dot(model: Logged) -> Any:
    return _raw(model.server, "DELETE", f"{model.place}/./model//./weights.skops", b"")


def put_extra_code(model: Logged) -> Any:
    return model.server.put(f"{model.place}/model/code.py", b"import os")


def put_at_the_top(model: Logged) -> Any:
    return model.server.put(f"{model.place}/adapter.bin", b"second weights")


def put_over_a_kept_file(model: Logged) -> Any:
    return model.server.put(f"{model.place}/quantgov/kept.txt", b"changed")


def delete_a_file(model: Logged) -> Any:
    return model.server.delete(f"{model.place}/{WEIGHTS}")


def delete_encoded_twice(model: Logged) -> Any:
    return _raw(model.server, "DELETE", f"{model.place}/model%252Fweights%252Eskops", b"")


def delete_by_the_ui(model: Logged) -> Any:
    return model.server.delete(f"{model.place}/{WEIGHTS}", api="ajax-api", host=model.server.url)


def delete_the_folder(model: Logged) -> Any:
    return model.server.delete(model.place)


def delete_the_experiment(model: Logged) -> Any:
    return model.server.delete(model.place.split("/")[0])


def client_log_artifact(model: Logged) -> Any:
    with _ChangedFile() as path:
        mlflow.set_tracking_uri(model.server.url)
        if model.model_id is not None:
            return model.server.client.log_model_artifact(model.model_id, path, "model")
        return model.server.client.log_artifact(model.run_id, path, "model/model")


def client_log_artifacts(model: Logged) -> Any:
    with _ChangedFile() as path:
        mlflow.set_tracking_uri(model.server.url)
        folder = str(Path(path).parent)
        if model.model_id is not None:
            return model.server.client.log_model_artifacts(model.model_id, folder)
        return model.server.client.log_artifacts(model.run_id, folder, "model/model")


def upload_artifact(model: Logged) -> Any:
    """The UI's own upload into a run."""
    url = f"{model.server.url}/ajax-api/2.0/mlflow/upload-artifact"
    parameters = {"run_uuid": model.run_id, "path": f"model/{WEIGHTS}"}
    return requests.post(url, params=parameters, data=b"changed", timeout=60)


def garbage_collection(model: Logged) -> Any:
    """`mlflow gc` with the server's own settings, after the logged model or the run was deleted."""
    one = model.server
    if model.model_id is not None:
        # Past the server, which refuses that.
        mlflow.MlflowClient(tracking_uri=one.database).delete_logged_model(model.model_id)
        chosen = ["--logged-model-ids", model.model_id]
    else:
        one.client.delete_run(model.run_id)
        chosen = ["--run-ids", model.run_id]
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", one.database,
               "--artifacts-destination", str(one.artifacts), "--tracking-uri", one.url, *chosen]  # fmt: skip
    environment = os.environ | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done


def _raw(one: Server, method: str, path: str, data: bytes) -> requests.Response:
    """As it stands, without the client's own tidying of the path."""
    request = requests.Request(method, one.host, data=data).prepare()
    request.url = f"{one.host}/api/2.0/mlflow-artifacts/artifacts/{path}"
    return requests.Session().send(request, timeout=60)


class _ChangedFile:
    def __enter__(self) -> str:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "weights.skops"
        path.write_bytes(b"changed")
        return str(path)

    def __exit__(self, *_: Any) -> None:
        self.folder.cleanup()


BOTH = [
    put, put_by_the_ui, put_by_the_ui_at_the_root, put_encoded, put_encoded_twice, delete_through_a_dot, put_extra_code,
    put_at_the_top, put_over_a_kept_file, delete_a_file, delete_encoded_twice, delete_by_the_ui, delete_the_folder,
    delete_the_experiment, client_log_artifact, client_log_artifacts, garbage_collection,
]  # fmt: skip
ATTACKS = [(logged_model, one) for one in BOTH] + [(run_model, one) for one in (*BOTH, upload_artifact)]
NAMES = [f"{make.__name__}-{attack.__name__}" for make, attack in ATTACKS]


def _attacked(made: Logged, attack: Attack) -> tuple[bool, str]:
    """Whether files changed, and what the attacker was told."""
    before = made.files()
    try:
        answer = attack(made)
        said = f"{answer.status_code} {answer.text}" if isinstance(answer, requests.Response) else str(answer)
    except Exception as error:
        said = str(error)
    return made.files() != before, said


@pytest.mark.parametrize(("make", "attack"), ATTACKS, ids=NAMES)
def test_the_door_is_open_on_plain_mlflow(plain: Server, make: Callable[[Server], Logged], attack: Attack) -> None:
    changed, said = _attacked(make(plain).register(), attack)
    assert changed, said


@pytest.mark.parametrize(("make", "attack"), ATTACKS, ids=NAMES)
def test_the_door_is_closed(
    gated: Server, make: Callable[[Server], Logged], attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    changed, said = _attacked(make(gated).register(), attack)
    assert not changed
    assert "quantgov refused" in said or "403" in said, said


@pytest.mark.parametrize("make", [logged_model, run_model])
def test_before_it_is_registered_anything_may_be_written(gated: Server, make: Callable[[Server], Logged]) -> None:
    made = make(gated)
    assert put(made).ok and put_extra_code(made).ok and delete_a_file(made).ok


def test_what_lies_elsewhere_in_the_run_may_be_written(gated: Server) -> None:
    made = run_model(gated).register()
    above = made.place.rsplit("/", 1)[0]
    assert gated.put(f"{above}/plots/curve.png", b"x").ok
    assert gated.put(f"{above}/model-2/weights.skops", b"x").ok, "a name that begins alike is another folder"
    assert gated.delete(f"{above}/model-2").ok


def test_a_deleted_version_frees_its_files(gated: Server) -> None:
    made = logged_model(gated).register()
    version = next(one for one in gated.client.search_model_versions() if one.source == made.source)
    assert put(made).status_code == 403
    gated.client.delete_model_version(version.name, version.version)
    assert put(made).ok


def test_an_upload_that_began_before_the_registration_is_not_published(gated: Server) -> None:
    """Open on any check that is made only when an upload begins."""
    made = logged_model(gated)
    before = made.files()
    with _SlowUpload(gated, f"{made.place}/{WEIGHTS}", b"changed" * 1000) as upload:
        made.register()
        status = upload.finish()
    assert (status, made.files()) == (403, before)


def test_an_upload_that_ended_before_the_registration_is_published(gated: Server) -> None:
    made = logged_model(gated)
    with _SlowUpload(gated, f"{made.place}/{WEIGHTS}", b"changed" * 1000) as upload:
        assert upload.finish() == 200
    assert made.files()[WEIGHTS] == b"changed" * 1000


def test_evidence_is_added_and_not_altered(gated: Server) -> None:
    made = logged_model(gated).register()
    name, data = _statement(0.5)
    path = f"{made.place}/quantgov/evidence/{name}"
    answer = gated.put(path, data)
    assert answer.ok, answer.text
    assert gated.put(path, data).ok, "a client that got no answer sends again"
    assert gated.put(path, _statement(0.25)[1]).status_code == 403
    assert gated.delete(path).status_code == 403
    assert made.files()[f"quantgov/evidence/{name}"] == data


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("quantgov/evidence/task-eval-0123456789abcdef.json", b"{}"),
        ("quantgov/evidence/weights.safetensors", b"x"),
        ("quantgov/evidence/deeper/fidelity-0.json", b"{}"),
        ("quantgov/plots/curve.png", b"GGUF" + b"\0" * 100),
        ("quantgov/plots/code.py", b"x"),
        ("quantgov/manifest.json", b"{}"),
    ],
)
def test_what_would_spoil_a_version_is_not_added(gated: Server, path: str, data: bytes) -> None:
    """Nobody could take it away again."""
    made = logged_model(gated).register()
    answer = gated.put(f"{made.place}/{path}", data)
    assert answer.status_code == 403, answer.text
    assert made.files() == FILES


def test_reports_and_plots_are_added_and_not_altered(gated: Server) -> None:
    made = logged_model(gated).register()
    for path in ("quantgov/report.html", "quantgov/plots/layers.svg", "quantgov/reports/champion.html"):
        assert gated.put(f"{made.place}/{path}", b"<p>one</p>").ok
        assert gated.put(f"{made.place}/{path}", b"<p>two</p>").status_code == 403
    assert made.files()["quantgov/report.html"] == b"<p>one</p>"


def test_an_experiment_inside_a_model_adds_nothing_to_it(gated: Server) -> None:
    """A client chooses where an experiment keeps its artifacts: here in the folder of somebody's model."""
    made = logged_model(gated).register()
    inside = f"file://{gated.artifacts}/{made.place}/model"
    experiment = gated.client.create_experiment(f"inside-{made.model_id}", artifact_location=inside)
    run = gated.client.create_run(experiment)
    answer = upload_artifact(Logged(gated, run.info.run_id, None, made.place, ""))
    assert answer.status_code == 403, answer.text
    assert made.files() == FILES


def test_a_version_cannot_take_in_everybody_s_artifacts(gated: Server) -> None:
    """It would forbid everybody to write."""
    name = "wide"
    gated.client.create_registered_model(name)
    for source in (
        f"file://{gated.artifacts}",
        str(gated.artifacts / "1"),
        "mlflow-artifacts:/",
        "mlflow-artifacts:/1",
    ):
        answer = gated.post("model-versions/create", name=name, source=source)
        assert not answer.ok
    assert logged_model(gated).register()


def test_a_large_refused_upload_is_told_why(gated: Server) -> None:
    made = logged_model(gated).register()
    answer = gated.put(f"{made.place}/{WEIGHTS}", b"x" * 30_000_000)
    assert answer.status_code == 403 and "quantgov refused" in answer.text


def _wait_for(status: int, answers: list[int]) -> None:
    """Until somebody was told so; how long that takes is the machine's to say."""
    until = time.monotonic() + 120
    while status not in answers:
        assert time.monotonic() < until, answers[-10:]
        time.sleep(0.01)


def test_uploads_and_registrations_at_once(gated: Server) -> None:
    """Whatever the order: after the answer to the registration nothing changes any more."""
    for _ in range(5):
        made = logged_model(gated)
        stop, answers = threading.Event(), []

        def write(made: Logged = made, stop: threading.Event = stop, answers: list[int] = answers) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                answers.append(gated.put(f"{made.place}/{WEIGHTS}", f"{count}".encode()).status_code)

        writers = [threading.Thread(target=write) for _ in range(4)]
        for one in writers:
            one.start()
        _wait_for(200, answers)
        made.register()
        time.sleep(0.2)
        settled = made.files()
        _wait_for(403, answers)
        time.sleep(0.3)
        stop.set()
        for one in writers:
            one.join()
        assert made.files() == settled
        assert set(answers) == {200, 403}


class _SlowUpload:
    """An upload whose last bytes come later."""

    def __init__(self, one: Server, path: str, data: bytes) -> None:
        parsed = urlparse(one.host)
        self.socket = socket.create_connection((parsed.hostname, parsed.port), timeout=60)
        head = f"PUT {parsed.path}/api/2.0/mlflow-artifacts/artifacts/{path} HTTP/1.1\r\nHost: {parsed.netloc}\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode())
        self.socket.sendall(data[: len(data) // 2])
        self.rest = data[len(data) // 2 :]
        time.sleep(0.5)

    def __enter__(self) -> _SlowUpload:
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()

    def finish(self) -> int:
        self.socket.sendall(self.rest)
        return int(self.socket.recv(1000).split()[1])


def _statement(mean: float) -> tuple[str, bytes]:
    from mlflow_quantgov.evidence.predicates import Fidelity, Provenance, Side
    from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecord
    from mlflow_quantgov.evidence.signing import Attached
    from mlflow_quantgov.evidence.statement import Statement
    from mlflow_quantgov.evidence.store import copy_name

    weights = "sha256:" + "a" * 64
    side = Side(weights=weights, runtime="r", version="1")
    document = DocumentRecord(
        id=weights, tokens=1, parent_nll=mean, quantized_nll=1, kl=0, kl_max=0, same_top=1, identical=1, kl_counts=((0, 1),)
    )  # fmt: skip
    content = Fidelity.measured(
        provenance=Provenance(measured_at="2026-01-01T00:00:00Z", tool_version="0"), parent=side, quantized=side,
        data=weights, settings={}, documents=(document,),
    )  # fmt: skip
    statement = Statement.about(weights, content, name="m")
    return copy_name(Attached(statement)), statement.to_bytes()

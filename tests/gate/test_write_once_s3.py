"""Multipart and presigned uploads, on S3 as moto plays it: open on plain MLflow, closed on a gated server."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent))
from artifact_servers import Server, server

pytestmark = pytest.mark.slow
ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
BUCKET = "models"
PART = 5 * 1024 * 1024


@dataclass(frozen=True)
class Store:
    """A bucket on a moto server."""

    url: str
    client: Any

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        }  # fmt: skip

    def objects(self, prefix: str) -> dict[str, bytes]:
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {one["Key"]: self.client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read() for one in found}


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    import boto3
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )
    client.create_bucket(Bucket=BUCKET)
    yield Store(url, client)
    moto.stop()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "gated"])
def served(
    request: pytest.FixtureRequest, s3: Store, tmp_path_factory: pytest.TempPathFactory, _mlflow_tables: Path
) -> Iterator[Server]:
    """Artifacts go through the server into the bucket."""
    folder = tmp_path_factory.mktemp("s3")
    destination = f"s3://{BUCKET}/{folder.name}"
    with server(
        folder,
        gated=request.param,
        prefix="/ml",
        destination=destination,
        environment=s3.environment,
        tables=_mlflow_tables,
    ) as started:
        yield started


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "gated"])
def direct(
    request: pytest.FixtureRequest, s3: Store, tmp_path_factory: pytest.TempPathFactory, _mlflow_tables: Path
) -> Iterator[Server]:
    """Clients have the bucket's own address: `--no-serve-artifacts`."""
    folder = tmp_path_factory.mktemp("direct")
    options = ("--no-serve-artifacts", "--default-artifact-root", f"s3://{BUCKET}/{folder.name}")
    with server(
        folder, *options, gated=request.param, gunicorn=True, environment=s3.environment, tables=_mlflow_tables
    ) as started:
        yield started


@dataclass(frozen=True)
class Model:
    model_id: str
    run_id: str
    place: str
    """Below the destination."""
    key: str
    """In the bucket."""


def logged(one: Server, s3: Store) -> Model:
    """A model whose files lie in the bucket, not yet registered."""
    client = one.client
    experiment = client.create_experiment(f"e{uuid.uuid4().hex[:8]}")
    run = client.create_run(experiment)
    made = client.create_logged_model(experiment, name="m", source_run_id=run.info.run_id)
    client.finalize_logged_model(made.model_id, "READY")
    place = f"{experiment}/models/{made.model_id}/artifacts"
    model = Model(made.model_id, run.info.run_id, place, f"{one.folder.name}/{place}")
    s3.client.put_object(Bucket=BUCKET, Key=f"{model.key}/model/weights.bin", Body=b"as registered")
    return model


def register(one: Server, model: Model) -> str:
    name = f"m{uuid.uuid4().hex[:8]}"
    one.client.create_registered_model(name)
    answer = one.post(
        "model-versions/create",
        name=name,
        source=f"models:/{model.model_id}",
        model_id=model.model_id,
        run_id=model.run_id,
    )
    assert answer.ok, answer.text
    return name


def create(one: Server, model: Model, name: str = "weights.bin") -> requests.Response:
    url = f"{one.url}/api/2.0/mlflow-artifacts/mpu/create/{model.place}/model"
    return requests.post(url, json={"path": name, "num_parts": 1}, timeout=60)


def send_part(answer: requests.Response, data: bytes) -> dict[str, Any]:
    credential = answer.json()["credentials"][0]
    sent = requests.put(credential["url"], data=data, timeout=60)
    assert sent.ok
    return {"part_number": 1, "etag": sent.headers["ETag"], "url": credential["url"]}


def complete(one: Server, model: Model, upload: requests.Response, part: dict[str, Any]) -> requests.Response:
    url = f"{one.url}/api/2.0/mlflow-artifacts/mpu/complete/{model.place}/model"
    body = {"path": "weights.bin", "upload_id": upload.json()["upload_id"], "parts": [part]}
    return requests.post(url, json=body, timeout=60)


def test_a_multipart_upload_over_a_registered_file(served: Server, s3: Store) -> None:
    model = logged(served, s3)
    register(served, model)
    before = s3.objects(model.key)
    upload = create(served, model)
    if served.gated:
        assert upload.status_code == 403 and "quantgov refused" in upload.text
        assert s3.objects(model.key) == before
        return
    assert complete(served, model, upload, send_part(upload, b"changed")).ok
    assert s3.objects(model.key) != before


def test_a_multipart_upload_that_began_before_the_registration(served: Server, s3: Store) -> None:
    model = logged(served, s3)
    upload = create(served, model)
    part = send_part(upload, b"changed")
    register(served, model)
    answer = complete(served, model, upload, part)
    changed = s3.objects(model.key)[f"{model.key}/model/weights.bin"] == b"changed"
    assert (answer.ok, changed) == ((False, False) if served.gated else (True, True))
    if served.gated:
        assert answer.status_code == 403
        # What is left of it can be thrown away.
        url = f"{served.url}/api/2.0/mlflow-artifacts/mpu/abort/{model.place}/model"
        body = {"path": "weights.bin", "upload_id": upload.json()["upload_id"]}
        assert requests.post(url, json=body, timeout=60).ok
        # A part's address can write that part and nothing else.
        requests.put(part["url"].split("?")[0], data=b"changed", timeout=60)


def test_a_multipart_upload_before_the_registration_is_published(served: Server, s3: Store) -> None:
    model = logged(served, s3)
    upload = create(served, model)
    assert complete(served, model, upload, send_part(upload, b"x" * PART)).ok
    assert len(s3.objects(model.key)[f"{model.key}/model/weights.bin"]) == PART


@pytest.mark.parametrize("path", ["model/weights.bin", "model/code.py", "/model//weights.bin"])
def test_uploads_and_deletions_through_the_server(served: Server, s3: Store, path: str) -> None:
    model = logged(served, s3)
    register(served, model)
    before = s3.objects(model.key)
    answers = [served.put(f"{model.place}/{path}", b"changed").status_code]
    answers += [served.delete(f"{model.place}/{path}").status_code, served.delete(model.place).status_code]
    assert (s3.objects(model.key) == before, set(answers)) == ((True, {403}) if served.gated else (False, {200}))


def test_evidence_is_still_added(served: Server, s3: Store) -> None:
    model = logged(served, s3)
    register(served, model)
    path = f"{model.place}/quantgov/plots/layers.svg"
    assert served.put(path, b"<svg/>").ok
    assert served.put(path, b"<svg/>").ok
    assert served.put(path, b"<svg></svg>").status_code == (403 if served.gated else 200)


def test_the_gate_reads_what_it_serves_from_the_bucket(served: Server, s3: Store) -> None:
    """It asked its own tracking URI, which is a database, for `mlflow-artifacts:`: every version was refused as unreachable."""
    if not served.gated:
        return
    model = logged(served, s3)
    for path in (ARTIFACTS / "gptq-w4g32").iterdir():
        s3.client.put_object(Bucket=BUCKET, Key=f"{model.key}/model/{path.name}", Body=path.read_bytes())
    s3.client.delete_object(Bucket=BUCKET, Key=f"{model.key}/model/weights.bin")
    name = register(served, model)
    body = {"name": name, "version": "1", "to": "@champion"}
    answer = requests.post(f"{served.url}/quantgov/api/check", json=body, timeout=120)
    (identity,) = [one for one in answer.json()["checks"] if one["check"] == "identity"]
    assert "no manifest was written" in identity["reason"], identity


@pytest.mark.parametrize("registered_first", [True, False])
def test_a_presigned_upload(direct: Server, s3: Store, registered_first: bool) -> None:
    """Its address works until it expires, whatever is registered meanwhile."""
    model = logged(direct, s3)
    if registered_first:
        register(direct, model)
    answer = direct.post("artifacts/presigned-upload-url", model_id=model.model_id, path="model/weights.bin")
    if direct.gated:
        assert answer.status_code == 403 and "quantgov refused" in answer.text
        return
    register(direct, model)
    body = answer.json()
    assert requests.put(body["presigned_url"], data=b"changed", headers=body.get("headers", {}), timeout=60).ok
    assert s3.objects(model.key)[f"{model.key}/model/weights.bin"] == b"changed"


def test_the_server_s_own_uploads_where_it_serves_no_artifacts(direct: Server, s3: Store) -> None:
    """The UI's upload into a run goes through the server all the same."""
    client = direct.client
    experiment = client.create_experiment(f"e{uuid.uuid4().hex[:8]}")
    run = client.create_run(experiment)
    key = run.info.artifact_uri.removeprefix(f"s3://{BUCKET}/")
    s3.client.put_object(Bucket=BUCKET, Key=f"{key}/model/weights.bin", Body=b"as registered")
    name = f"m{uuid.uuid4().hex[:8]}"
    client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/model"
    assert direct.post("model-versions/create", name=name, source=source, run_id=run.info.run_id).ok
    url = f"{direct.url}/ajax-api/2.0/mlflow/upload-artifact"
    parameters = {"run_uuid": run.info.run_id, "path": "model/weights.bin"}
    answer = requests.post(url, params=parameters, data=b"changed", timeout=60)
    assert answer.status_code == (403 if direct.gated else 200)
    kept = s3.objects(key)[f"{key}/model/weights.bin"]
    assert kept == (b"as registered" if direct.gated else b"changed")


def test_a_source_that_takes_in_the_whole_bucket(direct: Server, s3: Store) -> None:
    """MLflow does not look where an S3 source leads; everybody else's uploads would be refused."""
    name = f"m{uuid.uuid4().hex[:8]}"
    direct.client.create_registered_model(name)
    logged(direct, s3)
    for source in (f"s3://{BUCKET}/{direct.folder.name}", f"s3://{BUCKET}/{direct.folder.name}/1"):
        answer = direct.post("model-versions/create", name=name, source=source)
        assert answer.ok is not direct.gated
        assert not direct.gated or "holds the artifacts of others" in answer.text


def test_what_a_version_in_a_bucket_says_of_its_parent_is_read(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server itself, to which clients' addresses (`mlflow-artifacts:`) lead nowhere."""
    from mlflow_quantgov.gate.facts.sources import VersionRef
    from mlflow_quantgov.gate.facts.version_files import claimed_parent

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", f"s3://{BUCKET}/claims")
    record = json.dumps({"schema": "quantgov/lineage/v1", "parent": {"uri": "models:/parent/1"}})
    s3.client.put_object(Bucket=BUCKET, Key="claims/0/m/quantgov/lineage.json", Body=record.encode())
    ref = VersionRef("chat", "1", "mlflow-artifacts:/0/m", 0, "mlflow-artifacts:/0/m")
    assert (claimed_parent(ref, None) or {}).get("uri") == "models:/parent/1"
    assert claimed_parent(replace(ref, location="mlflow-artifacts:/0/none"), None) is None

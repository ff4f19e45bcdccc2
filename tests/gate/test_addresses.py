"""An address of files that two readers may take differently is not taken: what is judged is what is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.gate.facts.addresses import oddity
from mlflow_quantgov.gate.facts.sources import VersionRef, local_files

RUN = "0123456789abcdef0123456789abcdef"
PLAIN = [
    "/srv/artifacts/1/model",
    "/srv/artifacts/1/model/",
    "/srv/ä b/model",
    "file:///srv/my%20files/m%C3%A9/model/",
    "mlflow-artifacts:/0/run/artifacts/model",
    "mlflow-artifacts://host:5000/0/run/artifacts/my%20model",
    "s3://bucket/team/model",
    "wasbs://container@account.blob.core.windows.net/model",
    f"runs:/{RUN}/model",
    f"runs:/{RUN}",
]
ODD = [
    "/srv/model%41",
    "/srv/./model",
    "/srv//model",
    "/srv/other/../model",
    "/srv/model;x",
    "/srv/model?x",
    "/srv\\model",
    " /srv/model",
    "FILE:///srv/model",
    "file://localhost/srv/model",
    "file:///srv/a%2Fb",
    "file:///srv/a%2541",
    "file:///srv/%FF",
    "mlflow-artifacts:/0/run/artifacts/model%3Fx",
    "mlflow-artifacts:/0/run/artifacts/model%23x",
    "mlflow-artifacts:/q%2541/run/artifacts/model",
    "mlflow-artifacts:/0/%2e%2e/1/model",
    "mlflow-artifacts:/0/run/artifacts/model/",
    "s3://bucket/team//model",
    "s3://bucket/model/",
    "s3://bucket/mod%65l",
    "s3://bu?cket/model",
    "mlflow-artifacts://host#x/0/run/artifacts/model",
    f"RUNS:/{RUN}/model",
    f"runs:/{RUN}/mo\tdel",
    f"runs:/{RUN}/model?x=1",
    f"runs:/{RUN}/model#x",
    f"runs:/{RUN}/mod%2565l",
    f"runs:/{RUN}/mo\u200bdel",
]


@pytest.mark.parametrize("address", PLAIN)
def test_a_plain_address_is_taken(address: str) -> None:
    assert oddity(address) is None


@pytest.mark.parametrize("address", ODD)
def test_an_address_of_two_readings_is_not(address: str) -> None:
    assert oddity(address)


@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4),
    st.sampled_from(["file", "mlflow-artifacts", "s3"]),
)
def test_what_is_taken_reads_the_same_however_often_it_is_decoded(names: list[str], scheme: str) -> None:
    for path in ("/".join(names), "/".join(map(quote, names))):
        address = f"{scheme}:///{path}"
        if oddity(address) is None:
            found = urlsplit(address)
            once = unquote(found.path)
            assert not found.query and not found.fragment
            assert once == unquote(once) and len(Path(once).parts) == found.path.rstrip("/").count("/") + 1


@pytest.mark.parametrize("source", ["{place}%41", "file://{place}?x", "{place}//.", "file://{place}#x"])
def test_no_version_is_made_of_it(store: Any, tmp_path: Path, source: str) -> None:
    store.create_registered_model("m")
    with pytest.raises(MlflowException, match=r"can be read in two ways.*Fix:"):
        store.create_model_version("m", source.format(place=tmp_path / "model"))


@pytest.mark.parametrize(
    "source", ["models:///m-{id}", "models:/m-{id}?x", "models:/m", "models:/m@champion", "models:/m/latest"]
)
def test_no_version_is_made_of_a_model_in_another_spelling(store: Any, source: str) -> None:
    store.create_registered_model("m")
    with pytest.raises(MlflowException, match="can be read in two ways"):
        store.create_model_version("m", source.format(id=RUN))


@pytest.mark.parametrize("location", ["mlruns/0/model", "file:mlruns/0/model", "~/model", "models:/other@dev"])
def test_files_are_not_read_from_where_a_reader_stands_or_from_what_moves(location: str) -> None:
    with pytest.raises(ArtifactError), local_files(VersionRef("m", "1", location, 0), None):
        pass


def test_the_files_of_another_host_are_not_looked_for_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0" / "model").mkdir(parents=True)
    (tmp_path / "0" / "model" / "MLmodel").write_text("flavors: {}")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(tmp_path))
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts://ours:5000/")
    for host in ("", "//ours:5000"):
        with local_files(VersionRef("m", "1", f"mlflow-artifacts:{host}/0/model", 0), None) as root:
            assert root == tmp_path / "0" / "model"
    with (
        pytest.raises(ArtifactError, match="cannot be reached"),
        local_files(VersionRef("m", "1", "mlflow-artifacts://127.0.0.1:9/0/model", 0), None),
    ):
        pass


def test_nor_of_a_logged_model_that_lies_at_one(store: Any, tmp_path: Path) -> None:
    tracking = TrackingStore(str(store.engine.url), str(tmp_path / "artifacts"))
    experiment = tracking.create_experiment("odd", artifact_location=f"file://{tmp_path}/q%2541")
    model = tracking.create_logged_model(experiment, name="m")
    tracking.engine.dispose()
    store.create_registered_model("m")
    with pytest.raises(MlflowException, match="can be read in two ways"):
        store.create_model_version("m", f"models:/{model.model_id}")


def test_one_that_was_there_before_the_gate_is_not_let_through(store: Any, tmp_path: Path, skills: Path) -> None:
    plain = SqlAlchemyStore(str(store.engine.url))
    store.create_registered_model("chat")
    (tmp_path / "model%41").symlink_to(skills)
    plain.create_model_version("chat", str(tmp_path / "model%41"))
    plain.engine.dispose()
    with pytest.raises(MlflowException, match="can be read in two ways"):
        store.set_registered_model_alias("chat", "champion", "1")


def test_a_version_that_is_named_by_its_run_is_not_let_through(store: Any, tmp_path: Path, skills: Path) -> None:
    """Clients lay a logged model of that name over it, also one that is logged after the decision."""
    store.create_registered_model("chat")
    store.create_model_version("chat", f"runs:/{RUN}/model", run_id=RUN)
    with pytest.raises(MlflowException, match=r"named by their run.*register_model"):
        store.set_registered_model_alias("chat", "champion", "1")


def test_a_prompt_is_called_one(store: Any) -> None:
    store.create_registered_model("greeting", [RegisteredModelTag("mlflow.prompt.is_prompt", "true")])
    store.create_model_version("greeting", "dummy-source", tags=[ModelVersionTag("mlflow.prompt.is_prompt", "true")])
    with pytest.raises(MlflowException, match=r"one of MLflow's prompts, which need a rule of their own in the policy"):
        store.set_registered_model_alias("greeting", "champion", "1")


def test_files_are_read_the_way_in_which_clients_load_them(tmp_path: Path, skills: Path) -> None:
    """Opened on plain MLflow: what it loads through a run is not what it downloads from the same address."""
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    try:
        experiment = mlflow.create_experiment("shared", artifact_location=str(tmp_path / "shared"))
        client = mlflow.MlflowClient()
        run = client.create_run(experiment)
        client.log_text(run.info.run_id, "bad", "model/which.txt")
        model = client.create_logged_model(experiment, name="model", source_run_id=run.info.run_id)
        (tmp_path / "good").mkdir()
        (tmp_path / "good" / "which.txt").write_text("good")
        client.log_model_artifacts(model.model_id, str(tmp_path / "good"))
        address = f"runs:/{run.info.run_id}/model"
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        downloaded = mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(tmp_path / "one"))
        loaded = get_artifact_repository(address).download_artifacts("", str(tmp_path / "two"))
        assert (Path(downloaded) / "which.txt").read_text() == "good"
        assert (Path(loaded) / "which.txt").read_text() == "bad"
        with (
            pytest.raises(ArtifactError, match="named by their run"),
            local_files(VersionRef("m", "1", address, 0), None),
        ):
            pass
    finally:
        mlflow.set_tracking_uri(None)

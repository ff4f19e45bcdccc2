"""The flavor follows the conventions of MLflow's own, and nothing is left behind when logging fails."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.models import Model

import mlflow_quantgov as qg
from mlflow_quantgov.artifact.manifest import Manifest
from mlflow_quantgov.errors import ArtifactError, LineageError, QuantgovError, TamperingError, UsageError


def everything(client: mlflow.MlflowClient) -> list[str]:
    """Whatever a half-finished logging could leave behind."""
    return sorted(
        [one.name for one in client.search_registered_models()]
        + [f"{one.name}/{one.version}" for one in client.search_model_versions()]
        + [one.model_id for one in client.search_logged_models(["0"])]
        + [run.info.run_id for run in client.search_runs(["0"])]
    )


def test_arguments_are_those_of_mlflows_own_flavors() -> None:
    """Names and order of what every flavor of MLflow takes (its onnx flavor is the model)."""
    import mlflow.onnx as reference

    for ours, theirs in ((qg.save_model, reference.save_model), (qg.log_model, reference.log_model)):
        own = list(inspect.signature(ours).parameters)
        shared = [name for name in inspect.signature(theirs).parameters if name in own]
        assert {"pip_requirements", "extra_pip_requirements", "conda_env", "signature", "input_example"} <= set(shared)
        if ours is qg.log_model:
            assert {"params", "tags", "model_type", "step", "model_id", "registered_model_name"} <= set(shared)
    assert list(inspect.signature(qg.load_model).parameters)[:2] == ["model_uri", "dst_path"]


def test_what_is_saved_is_byte_for_byte_what_was_given(
    client: Any, quantized: Path, parent_uri: str, tmp_path: Path
) -> None:
    target = tmp_path / "saved"
    qg.save_model(quantized, target, parent=parent_uri, target="gpu-vllm-hopper", metadata={"team": "chat"},
                  extra_pip_requirements=["einops"])  # fmt: skip
    for file in quantized.iterdir():
        assert (target / "model" / file.name).read_bytes() == file.read_bytes()
    manifest = Manifest.from_json((target / "quantgov" / "manifest.json").read_text())
    assert manifest.verify(target / "model") == []
    saved = Model.load(str(target))
    assert {"quantgov", "python_function"} <= saved.flavors.keys()
    assert (saved.flavors["quantgov"]["role"], saved.flavors["quantgov"]["format"]) == ("quantized", "gptq")
    assert saved.metadata == {"team": "chat"} and saved.signature is not None
    requirements = (target / "requirements.txt").read_text()
    assert "mlflow-quantgov" in requirements and "einops" in requirements
    lineage = json.loads((target / "quantgov" / "lineage.json").read_text())
    assert lineage["parent"]["uri"] == parent_uri and lineage["target"]["name"] == "gpu-vllm-hopper"


def test_the_parent_becomes_a_version_of_the_same_model_after_the_quantized_one(
    client: mlflow.MlflowClient, quantized: Path, parent_uri: str
) -> None:
    info = qg.log_model(quantized, name="q", parent=parent_uri, registered_model_name="chat")
    versions = {str(one.version): one for one in client.search_model_versions("name = 'chat'")}
    assert str(info.registered_model_version) == "1" and set(versions) == {"1", "2"}
    assert versions["2"].source == client.get_model_version("parents", "1").source
    again = qg.log_model(quantized, name="q", parent=parent_uri, registered_model_name="chat")
    assert str(again.registered_model_version) == "3"
    assert len(client.search_model_versions("name = 'chat'")) == 3


def test_the_facts_stand_on_the_logged_models_page(
    client: mlflow.MlflowClient, quantized: Path, parent_uri: str
) -> None:
    info = qg.log_model(quantized, name="q", parent=parent_uri, params={"format": "mine", "lr": 1})
    params = client.get_logged_model(info.model_id).params
    assert (params["bits"], params["group_size"], params["parent"]) == ("4", "32", parent_uri)
    assert (params["format"], params["lr"]) == ("mine", "1")


Change = Callable[[Path], dict[str, Any]]


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (UsageError, lambda scratch: {"calibration": qg.Calibration(data=scratch / "gone.jsonl")}),
        (UsageError, lambda scratch: {"pip_requirements": ["a"], "extra_pip_requirements": ["b"]}),
        (UsageError, lambda scratch: {"pip_requirements": str(scratch / "gone.txt")}),
        (UsageError, lambda scratch: {"target": "no-such-target"}),
        (UsageError, lambda scratch: {"parent": "models:/parents/99"}),
        (LineageError, lambda scratch: {"parent": None}),
        (ArtifactError, lambda scratch: {"model": scratch / "gone"}),
        (UsageError, lambda scratch: {"model": object()}),
    ],
)  # fmt: skip
def test_nothing_is_left_behind_when_logging_fails(
    client: mlflow.MlflowClient,
    quantized: Path,
    parent_uri: str,
    tmp_path: Path,
    error: type[QuantgovError],
    change: Change,
) -> None:
    before = everything(client)
    arguments = {"model": quantized, "name": "q", "parent": parent_uri, "registered_model_name": "new"} | change(
        tmp_path
    )
    with pytest.raises(error) as raised:
        qg.log_model(**arguments)
    assert raised.value.fix
    assert everything(client) == before


def test_a_model_of_another_architecture_is_refused_with_the_reason(
    client: mlflow.MlflowClient, skills: Path, parent_uri: str, tmp_path: Path, quantized: Path
) -> None:
    other = qg.log_parent(skills, name="other", registered_model_name="others")
    before = everything(client)
    with pytest.raises(LineageError, match="does not fit the parent"):
        qg.log_model(
            quantized, name="q", parent=f"models:/others/{other.registered_model_version}", registered_model_name="new"
        )
    assert everything(client) == before


def test_a_full_precision_model_cannot_be_a_quantized_ones_stand_in_for_a_parent(
    client: mlflow.MlflowClient, quantized: Path
) -> None:
    with pytest.raises(LineageError, match="names no parent"):
        qg.log_parent(quantized, name="p", registered_model_name="new")


def test_any_flavors_version_may_be_the_parent(
    client: mlflow.MlflowClient, parent: Path, quantized: Path, tmp_path: Path
) -> None:
    """Logged by another flavor (a pyfunc that carries the folder): its files can be inspected, and that is enough."""
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(parent), "model")
    client.create_registered_model("plain")
    client.create_model_version("plain", f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)
    info = qg.log_model(quantized, name="q", parent="models:/plain/1", registered_model_name="chat")
    assert info.registered_model_version is not None


def test_loading_compares_every_file_with_what_was_logged(client: Any, skills: Path, tmp_path: Path) -> None:
    qg.save_model(skills, tmp_path / "saved")
    weights = tmp_path / "saved" / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(TamperingError, match="has changed"):
        qg.load_model(str(tmp_path / "saved"))


def test_a_folder_in_the_way_is_not_touched(client: Any, skills: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine").write_text("x")
    with pytest.raises(ArtifactError, match="not empty"):
        qg.save_model(skills, tmp_path / "saved")
    assert [one.name for one in (tmp_path / "saved").iterdir()] == ["mine"]


def test_a_model_that_grows_while_it_is_copied_is_not_saved(client: Any, skills: Path, tmp_path: Path) -> None:
    from mlflow_quantgov.flavor.prepare import prepare

    source = shutil.copytree(skills, tmp_path / "source")
    prepared = prepare(source, parent=None, target=None)
    (source / "late.txt").write_text("still writing")
    with pytest.raises(ArtifactError, match="changed while"):
        qg.save_model(prepared, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()

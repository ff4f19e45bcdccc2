"""Stores that a policy names, on a real registry: what is compared is where clients get the files, whatever named them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

from mlflow_quantgov.gate.registry_store import open_store

POLICY = """
schema: quantgov/policy/v1
name: ours alone
gates:
  bytes: {{checks: [identity]}}
rules:
  - models: "*"
    create: {create}
    destinations: {{"@champion": bytes}}
    stores: ["{ours}"]
"""

MLMODEL = "flavors: {python_function: {loader_module: mlflow_quantgov.flavor, data: model}, quantgov: {}}\n"


@pytest.fixture
def opened(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Opens a store whose policy takes files from the folder `ours` alone."""

    def make(create: str) -> Any:
        (tmp_path / "policy.yaml").write_text(POLICY.format(ours=tmp_path / "ours", create=create))
        monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
        return open_store(f"quantgov:{database}")

    return make


@pytest.fixture
def models(opened: Callable[[str], Any], logged: Callable[..., str], tmp_path: Path) -> tuple[Any, dict[str, str]]:
    """A registry, and the same model at six sources: in each of two folders plain, as an address and as a logged model."""
    store, sources = opened("open"), {}
    tracking = TrackingStore(store.db_uri, str(tmp_path / "artifacts"))
    for folder in ("ours", "ours-too"):
        place = logged(tmp_path / folder / "plain", "gptq-w4g32", None)
        (Path(place) / "MLmodel").write_text(MLMODEL)
        experiment = tracking.create_experiment(folder, artifact_location=str(tmp_path / folder))
        model = tracking.create_logged_model(experiment, name="m")
        shutil.copytree(place, model.artifact_location)
        sources |= {
            f"{folder}, plain": place,
            f"{folder}, as an address": f"file://{place}",
            f"{folder}, as a logged model": f"models:/{model.model_id}",
        }
    tracking.engine.dispose()
    store.create_registered_model("chat")
    store.create_registered_model("copies")
    mlflow.set_tracking_uri(store.db_uri)  # MLflow looks a logged model up there
    return store, sources


def test_only_what_lies_there_is_let_through(models: tuple[Any, dict[str, str]]) -> None:
    store, sources = models
    for name, source in sources.items():
        version = str(store.create_model_version("chat", source).version)
        copy = str(store.create_model_version("copies", f"models:/chat/{version}").version)
        for model, number in (("chat", version), ("copies", copy)):
            if name.startswith("ours,"):
                store.set_registered_model_alias(model, "champion", number)
                continue
            with pytest.raises(
                MlflowException, match=r"identity fail: Its files lie at .*/ours-too/.*, and the policy"
            ):
                store.set_registered_model_alias(model, "champion", number)


def test_a_creation_that_is_a_promotion_is_judged_by_where_its_files_lie(
    models: tuple[Any, dict[str, str]], opened: Callable[[str], Any]
) -> None:
    sources, store = models[1], opened("gated")
    for name, source in sources.items():
        if name.startswith("ours,"):
            assert store.create_model_version("chat", source).version
            continue
        with pytest.raises(MlflowException, match=r"identity fail: Its files lie at .*/ours-too/.*, and the policy"):
            store.create_model_version("chat", source)


def test_a_model_of_another_kind_has_to_lie_there_too(opened: Callable[[str], Any], tmp_path: Path) -> None:
    store = opened("open")
    store.create_registered_model("iris")
    for folder in ("ours", "ours-too"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "MLmodel").write_text("flavors: {sklearn: {}}\n")
        (tmp_path / folder / "model.skops").write_bytes(b"small")
        store.create_model_version("iris", str(tmp_path / folder))
    store.set_registered_model_alias("iris", "champion", "1")
    with pytest.raises(MlflowException, match=r"Its files lie at .*/ours-too, and the policy.*Fix:"):
        store.set_registered_model_alias("iris", "champion", "2")

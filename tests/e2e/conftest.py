"""A real gated server with the skills model, evidence included: once on SQLite and once on PostgreSQL."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@dataclass(frozen=True)
class Registry:
    """A running server and what was registered on it."""

    url: str
    folder: Path
    database: str
    """URI of the server's database."""
    model: str
    parent: str
    """URI of the parent."""
    bare: str
    """URI of a 2-bit version without evidence."""
    good: str
    """URI of the 8-bit version with all the evidence that the policy asks for."""


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The quick demo's cast on a server of its own, everything measured for the 8-bit version."""
    import mlflow
    import yaml

    import mlflow_quantgov as qg
    from mlflow_quantgov.demo.cast import skills
    from mlflow_quantgov.demo.server import gated_server
    from mlflow_quantgov.evidence.targets import capture, find_target
    from mlflow_quantgov.lineage import facts_of
    from mlflow_quantgov.policy.schema import ParentPin

    folder = tmp_path_factory.mktemp("server")
    database = f"sqlite:///{folder / 'mlflow.db'}"
    if request.param == "postgres":
        database = request.getfixturevalue("new_postgres_database")()
    patch = pytest.MonkeyPatch()
    patch.setenv("QUANTGOV_CACHE", str(folder / "cache"))
    patch.setenv("QUANTGOV_ARCHIVE", str(folder / "archive"))
    cast = skills(folder)
    base = find_target("cpu-llamacpp").model_copy(update={"must_improve": "memory"})
    capture("test-cpu", base, folder / "test-cpu.yaml")
    policy: dict[str, Any] = yaml.safe_load(cast.policy.read_text())
    policy["rules"][0]["yardsticks"] = {"parents": [ParentPin.of(facts_of(cast.parent)).model_dump(mode="json")]}
    # A model whose very creation is a promotion, for the UI's "Promote model".
    protected = {**policy["rules"][0], "models": "protected", "create": "gated"}
    policy["rules"].insert(0, protected)
    (folder / "policy.yaml").write_text(json.dumps(policy))
    with gated_server(folder, folder / "policy.yaml", database) as url:
        mlflow.set_tracking_uri(url)
        mlflow.set_registry_uri(url)
        target = folder / "test-cpu.yaml"
        info = qg.log_parent(cast.parent, name="parent", registered_model_name=cast.model, target=target)
        parent = f"models:/{cast.model}/{info.registered_model_version}"
        qg.archive(parent)
        qg.drill(parent, prompt=cast.prompt)
        uris = []
        for path in (cast.low, cast.high):
            info = qg.log_model(path, name=path.stem, parent=parent, target=target, registered_model_name=cast.model)
            uris.append(f"models:/{cast.model}/{info.registered_model_version}")
        qg.confirm_kernels(uris[1])
        qg.benchmark(uris[1], rounds=7)
        qg.measure_fidelity(uris[1], cast.text)
        qg.evaluate(uris[1], cast.tasks)
        mlflow.MlflowClient().create_registered_model("protected")
        yield Registry(url, folder, database, cast.model, parent, uris[0], uris[1])
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
    patch.undo()


@pytest.fixture
def connected(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The server, with this test's MLflow pointed to it."""
    import mlflow

    monkeypatch.setenv("QUANTGOV_CACHE", str(registry.folder / "cache"))
    monkeypatch.setenv("QUANTGOV_ARCHIVE", str(registry.folder / "archive"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.url)
    mlflow.set_tracking_uri(registry.url)
    mlflow.set_registry_uri(registry.url)
    client = mlflow.MlflowClient()
    for alias in client.get_registered_model(registry.model).aliases:
        client.delete_registered_model_alias(registry.model, alias)
    yield registry
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture
def page(connected: Registry) -> Iterator[Any]:
    """A page of headless Chromium; skipped, loudly, where there is none."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed. Fix: sudo apt-get install chromium")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(45_000)
        yield tab
        browser.close()

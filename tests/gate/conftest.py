"""A gated store on SQLite and on a real PostgreSQL, and versions to promote."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.evidence.signing import TrustedKeys, load_signer, make_key, write_trusted_keys
from mlflow_quantgov.flavor.layout import LINEAGE_FILE, MANIFEST_FILE, LineageRecord
from mlflow_quantgov.gate.facts import descent
from mlflow_quantgov.gate.registry_store import open_store

sys.path.insert(0, str(Path(__file__).parent))
from narrow_releases import POLICY as NARROW
from narrow_releases import Registry, original, trained, trusted, written

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
POLICY = """
schema: quantgov/policy/v1
name: weights
gates:
  weights: {checks: [lineage], lineage_level: LEVEL}
rules:
  - models: "*"
    destinations: {"@champion": weights}
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """URI of an empty database of each kind."""
    if request.param == "sqlite":
        yield str(request.getfixturevalue("new_sqlite_database")())
        return
    made = str(request.getfixturevalue("new_postgres_database")())
    yield made
    # MLflow keeps an engine, with its connections, for every address; a server has a hundred of them.
    for kept in (RegistryStore._engine_map, TrackingStore._engine_map):
        if (engine := kept.pop(made, None)) is not None:
            engine.dispose()


@pytest.fixture
def store(database: str) -> Any:
    """The gated store with the default policy."""
    return open_store(f"quantgov:{database}")


@pytest.fixture
def quantized(store: Any, tmp_path: Path, skills: Path) -> str:
    """A registered model `chat` whose version 1 is a language model that nobody measured."""
    source = tmp_path / "logged"
    shutil.copytree(skills, source / "model")
    store.create_registered_model("chat")
    return str(store.create_model_version("chat", str(source)).version)


@pytest.fixture
def sklearn_like(store: Any, tmp_path: Path) -> Callable[[str], str]:
    """Registers a version without language-model weights."""

    def register(name: str) -> str:
        source = tmp_path / f"files-{name.encode().hex()[:60]}"
        source.mkdir(exist_ok=True)
        (source / "MLmodel").write_text("flavors: {sklearn: {}}\n")
        (source / "model.skops").write_bytes(b"small")
        if name not in [model.name for model in store.search_registered_models()]:
            store.create_registered_model(name)
        return str(store.create_model_version(name, str(source)).version)

    return register


@pytest.fixture
def logged() -> Callable[[Path, str, Path | None], str]:
    """Writes a model folder as this flavor does, from one of the small artifacts, and gives its place."""

    def write(root: Path, artifact: str, parent: Path | None) -> str:
        shutil.copytree(ARTIFACTS / artifact, root / "model")
        claim = None
        if parent is not None:
            held = build_manifest(parent / "model")
            claim = {"uri": "models:/parents/1", "weights": held.weights_digest, "manifest": held.digest}
        (root / MANIFEST_FILE).parent.mkdir()
        (root / MANIFEST_FILE).write_text(build_manifest(root / "model").to_json())
        (root / LINEAGE_FILE).write_text(LineageRecord("quantized" if parent else "parent", claim, None).to_json())
        return str(root)

    return write


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _mlflow_tables: Path) -> Callable[[str], Any]:
    """Makes a store whose policy demands a level of lineage and nothing else."""
    descent._made.clear()

    def make(level: str) -> Any:
        (tmp_path / f"{level}.yaml").write_text(POLICY.replace("LEVEL", level))
        monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / f"{level}.yaml"))
        shutil.copy(_mlflow_tables, tmp_path / f"{level}.db")
        store = open_store(f"quantgov:sqlite:///{tmp_path / f'{level}.db'}")
        store.create_registered_model("parents")
        store.create_registered_model("chat")
        return store

    return make


@pytest.fixture
def registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_sqlite_database: Callable[[], str], logged: Callable[..., str]
) -> Callable[..., Registry]:
    """A store with the original as version 1 of `parents` and its trained checkpoint as version 1 of `trained`."""
    descent._made.clear()

    def open_one(
        level: str = "structure",
        budgets: str = "{3: 0.02, 2: 0.02}",
        database: str | None = None,
        signed: str = "{}",
    ) -> Registry:
        policy = tmp_path / "policy.yaml"
        policy.write_text(NARROW.replace("LEVEL", level).replace("BUDGETS", budgets).replace("SIGNED", signed))
        monkeypatch.setenv("QUANTGOV_POLICY", str(policy))
        people = {name: load_signer(make_key(name, tmp_path / "people")[0]) for name in ("ada", "bob", "eve")}
        keys = TrustedKeys(keys=(trusted(people, "ada", "measurer"), trusted(people, "bob", "approver")))
        write_trusted_keys(tmp_path / "keys.yaml", keys)
        monkeypatch.setenv("QUANTGOV_KEYS", str(tmp_path / "keys.yaml"))
        store = open_store(f"quantgov:{database or new_sqlite_database()}")
        found = Registry(store, logged, tmp_path, people)
        found.register("parents", written(tmp_path / "1", original()))
        found.register("trained", written(tmp_path / "trained", trained()))
        return found

    return open_one

"""A gated store on SQLite and on a real PostgreSQL, and versions to promote."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.gate.registry_store import open_store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> str:
    """URI of an empty database of each kind."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("new_sqlite_database")())
    return str(request.getfixturevalue("new_postgres_database")())


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
        source = tmp_path / f"{name}-files"
        source.mkdir(exist_ok=True)
        (source / "MLmodel").write_text("flavors: {sklearn: {}}\n")
        (source / "model.skops").write_bytes(b"small")
        if name not in [model.name for model in store.search_registered_models()]:
            store.create_registered_model(name)
        return str(store.create_model_version(name, str(source)).version)

    return register

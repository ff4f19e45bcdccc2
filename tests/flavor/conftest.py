"""A local MLflow store, and the small artifacts to log into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

ARTIFACTS = Path(__file__).parent.parent / "data" / "artifacts"


@pytest.fixture
def client(
    new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[mlflow.MlflowClient]:
    """A client of an empty store."""
    monkeypatch.chdir(tmp_path)
    uri = new_sqlite_database()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture
def parent() -> Path:
    """A full-precision folder."""
    return ARTIFACTS / "parent-bf16"


@pytest.fixture
def quantized() -> Path:
    """A GPTQ folder of the same weights."""
    return ARTIFACTS / "gptq-w4g32"


@pytest.fixture
def parent_uri(client: mlflow.MlflowClient, parent: Path) -> str:
    """The parent, registered."""
    import mlflow_quantgov as qg

    info = qg.log_parent(parent, name="parent", registered_model_name="parents")
    return f"models:/parents/{info.registered_model_version}"

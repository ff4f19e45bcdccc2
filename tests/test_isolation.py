"""What one test tells MLflow does not reach the next, whichever that is: two processes share the tests out as they get free."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import pytest


@pytest.mark.parametrize("store", ["one.db", "another.db"])
def test_no_store_of_an_earlier_test_is_left(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"} & set(os.environ)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///named-by-the-variable.db")
    assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == "sqlite:///named-by-the-variable.db"
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / store}")
    mlflow.set_registry_uri(f"sqlite:///{tmp_path / store}")

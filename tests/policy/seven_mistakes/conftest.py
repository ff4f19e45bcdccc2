"""Makes the builders beside these tests importable, and opens stores with a policy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from whole_releases import Shelf

from mlflow_quantgov.gate.facts import descent
from mlflow_quantgov.gate.registry_store import open_store


@pytest.fixture
def shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_sqlite_database: Callable[[], str]
) -> Callable[[str], Shelf]:
    """A gated store with the default policy, or with another one's text."""
    descent._made.clear()

    def open_one(policy: str = "") -> Shelf:
        if policy:
            (tmp_path / "policy.yaml").write_text(policy, encoding="utf-8")
            monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
        return Shelf(open_store(f"quantgov:{new_sqlite_database()}"), tmp_path)

    return open_one

"""The gate reads both files of a parent: the pinned weights under a spoiled tokenizer or rope base are another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.exceptions import MlflowException

from mlflow_quantgov.gate.ledger.replay import replay
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.lineage import facts_of
from mlflow_quantgov.policy.schema import ParentPin

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
POLICY = """
schema: quantgov/policy/v1
name: pins
gates:
  full: {checks: [lineage]}
rules:
  - models: "*"
    destinations: {"@champion": full}
"""
Logged = Callable[[Path, str | Path, Path | None], str]


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_sqlite_database: Callable[[], str]) -> Any:
    """Makes a store whose policy wants lineage and pins parents."""

    def make(pin: Any) -> Any:
        policy = yaml.safe_load(POLICY)
        policy["rules"][0]["yardsticks"] = {"parents": [pin]}
        (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
        monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
        store = open_store(f"quantgov:{new_sqlite_database()}")
        store.create_registered_model("parents")
        store.create_registered_model("chat")
        return store

    return make


def parent_with(folder: Path, *ids: str) -> Path:
    """The small parent with a tokenizer that numbers its words so."""
    shutil.copytree(ARTIFACTS / "parent-bf16", folder)
    vocabulary = {word: number for number, word in enumerate(ids)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordLevel", "vocab": vocabulary}}))
    return folder


def test_a_parent_with_swapped_ids_reaches_no_alias_and_carries_no_version(
    pinned: Any, logged: Logged, tmp_path: Path
) -> None:
    good, bad = parent_with(tmp_path / "good", "yes", "no"), parent_with(tmp_path / "bad", "no", "yes")
    whole = ParentPin.of(facts_of(good))
    assert whole.weights == facts_of(bad).weights
    store = pinned(whole.model_dump(mode="json"))
    store.create_model_version("parents", logged(tmp_path / "1", bad, None))
    store.create_model_version("chat", logged(tmp_path / "2", "gptq-w4g32", tmp_path / "1"))
    for name in ("parents", "chat"):
        with pytest.raises(MlflowException, match="has the weights of an allowed parent, and another configuration"):
            store.set_registered_model_alias(name, "champion", "1")
    store.create_model_version("parents", logged(tmp_path / "3", good, None))
    store.set_registered_model_alias("parents", "champion", "2")
    record = json.loads(json.dumps(store.quantgov_record(store.quantgov_ledger("parents")[0]["decision_id"])))
    assert record["body"]["decision"] == "allowed" and replay(record).same


def test_a_policy_with_bare_digests_decides_and_replays_as_before_and_says_what_they_leave_open(
    pinned: Any, logged: Logged, tmp_path: Path
) -> None:
    bad = parent_with(tmp_path / "bad", "no", "yes")
    store = pinned(facts_of(bad).weights)
    store.create_model_version("parents", logged(tmp_path / "1", bad, None))
    store.set_registered_model_alias("parents", "champion", "1")
    row = store.quantgov_ledger("parents")[0]
    record = json.loads(json.dumps(store.quantgov_record(row["decision_id"])))
    assert record["body"]["labels"] == ["chosen by author: configuration and tokenizer of the parent"]
    assert replay(record).same


def test_the_way_back_is_the_parent_and_not_its_weights_under_another_configuration(
    pinned: Any, logged: Logged, tmp_path: Path
) -> None:
    good, bad = parent_with(tmp_path / "good", "yes", "no"), parent_with(tmp_path / "bad", "no", "yes")
    store = pinned(facts_of(good).weights)
    store.create_model_version("parents", logged(tmp_path / "1", good, None))
    store.create_model_version("chat", logged(tmp_path / "2", bad, None))
    store.create_model_version("chat", logged(tmp_path / "3", "gptq-w4g32", tmp_path / "1"))
    assert store.quantgov_facts("chat", "2").lineage.parent_version is None
    store.create_model_version("chat", logged(tmp_path / "4", good, None))
    assert store.quantgov_facts("chat", "2").lineage.parent_version == "3"

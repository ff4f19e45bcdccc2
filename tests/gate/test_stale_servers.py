"""Two servers on one database, of which one has been started again with other files: the other decides nothing any more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_quantgov.evidence.signing import TrustedKey, TrustedKeys, load_signer, make_key, write_trusted_keys
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.policy.loader import load_policy

STALE = "not in force any more"


def refused(ask: Callable[[], Any], words: str) -> None:
    with pytest.raises(MlflowException, match=words) as raised:
        ask()
    assert raised.value.get_http_status_code() == 403


@pytest.fixture
def start(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts another server on the same database."""

    def started(policy: str | None = None, keys: TrustedKeys | None = None) -> Any:
        (tmp_path / "policy.yaml").write_text(policy or load_policy().text)
        monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
        if keys is not None:
            write_trusted_keys(tmp_path / "keys.yaml", keys)
            monkeypatch.setenv("QUANTGOV_KEYS", str(tmp_path / "keys.yaml"))
        return open_store(f"quantgov:{database}")

    return started


def test_a_server_that_only_observed_lets_nothing_through_once_another_enforces(
    start: Callable[..., Any], skills: Path
) -> None:
    observing = start(load_policy().text.replace("mode: enforce", "mode: observe"))
    observing.create_registered_model("chat")
    observing.create_model_version("chat", str(skills))
    enforcing = start()
    for move in (
        lambda: observing.set_registered_model_alias("chat", "champion", "1"),
        lambda: observing.transition_model_version_stage("chat", "1", "Production", False),
        lambda: observing.delete_model_version("chat", "1"),
        lambda: observing.set_registered_model_alias("chat", "candidate", "1"),
    ):
        refused(move, STALE)
    assert dict(enforcing.get_registered_model("chat").aliases) == {}
    # An alias may be taken away by anybody, and what the policy in force leaves open goes on there.
    enforcing.set_registered_model_alias("chat", "candidate", "1")
    observing.delete_registered_model_alias("chat", "candidate")
    assert enforcing.quantgov_verify().ok


def test_the_policy_that_was_put_back_is_in_force_again(start: Callable[..., Any], sklearn_like: Any) -> None:
    first = start()
    start(load_policy().text.replace("name: default", "name: another"))
    sklearn_like("iris")
    refused(lambda: first.set_registered_model_alias("iris", "champion", "1"), STALE)
    start()
    first.set_registered_model_alias("iris", "champion", "1")


def test_a_server_that_knows_of_no_revocation_decides_nothing(
    start: Callable[..., Any], tmp_path: Path, sklearn_like: Any
) -> None:
    public = load_signer(make_key("ada", tmp_path / "people")[0]).public
    key = TrustedKey(id=public.id, public_key=public.text, name="ada", roles=("measurer",),
                     not_before=datetime(2026, 1, 1, tzinfo=UTC))  # fmt: skip
    before = start(keys=TrustedKeys(keys=(key,)))
    sklearn_like("iris")
    before.set_registered_model_alias("iris", "champion", "1")
    lost = key.model_copy(update={"revoked_at": datetime.now(UTC), "reason": "laptop stolen"})
    after = start(keys=TrustedKeys(keys=(lost,)))
    refused(
        lambda: before.set_registered_model_alias("iris", "production", "1"), "the keys file that this server has read"
    )
    after.set_registered_model_alias("iris", "production", "1")

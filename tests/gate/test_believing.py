"""A decision holds for the very version that was judged: what was made again, re-pointed, renamed or put there by hand has none."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy
from click.testing import CliRunner
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._model_registry.registry import ModelRegistryStoreRegistry

import mlflow_quantgov as qg
from mlflow_quantgov.cli import cli
from mlflow_quantgov.errors import TamperingError, UsageError
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.pointers.believing import standing
from mlflow_quantgov.gate.pointers.listing import all_pointers
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.policy.loader import parse_policy
from mlflow_quantgov.production.approval import require_approval

POLICY = """
schema: quantgov/policy/v1
name: NAME
mode: MODE
gates: {identity: {checks: [CHECKS]}}
rules: [{models: "*", destinations: {"@champion": identity, Production: identity, "@candidate": open, None: open, Archived: open}}]
"""


class Chat:
    """A registered model `chat` whose version 1 is the skills model, behind a gate that asks for little."""

    def __init__(self, database: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.database, self.folder, self.patch = database, folder, patch

    def open(self, checks: str = "identity", mode: str = "enforce", extra: str = "") -> Any:
        text = POLICY.replace("CHECKS", checks).replace("MODE", mode).replace("NAME", f"asks-{checks}") + extra
        (self.folder / "policy.yaml").write_text(text)
        self.patch.setenv("QUANTGOV_POLICY", str(self.folder / "policy.yaml"))
        # MLflow keeps a store for every address; the one before has read another policy, and decides nothing any more.
        ModelRegistryStoreRegistry._get_store_with_resolved_uri.cache_clear()
        mlflow.set_tracking_uri(self.database)
        mlflow.set_registry_uri(f"quantgov:{self.database}")
        self.client = mlflow.MlflowClient()
        self.store: Any = open_store(f"quantgov:{self.database}")
        return self.store

    def sql(self, *statements: str) -> None:
        """Runs statements as somebody who owns the database, and first takes the triggers away."""
        with sqlalchemy.create_engine(self.database).begin() as connection:
            triggers.remove(connection)
            for one in statements:
                connection.execute(sqlalchemy.text(one))

    def how(self) -> list[str]:
        return [one["how"] for one in self.store.quantgov_pointers("chat")]

    def recheck(self, *arguments: str) -> tuple[int, Any]:
        found = CliRunner().invoke(cli, ["recheck", *arguments, "--json"], standalone_mode=False)
        assert found.exception is None, found.exception
        return found.return_value, json.loads(found.stdout)


@pytest.fixture
def chat(
    new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skills: Path
) -> Iterator[Chat]:
    database = new_sqlite_database()
    qg.save_model(skills, tmp_path / "saved")
    plain = SqlAlchemyStore(database)
    plain.create_registered_model("chat")
    plain.create_model_version("chat", str(tmp_path / "saved"))
    yield Chat(database, tmp_path, monkeypatch)
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


AROUND = (
    "INSERT INTO registered_model_aliases (workspace, alias, version, name) VALUES ('default', 'champion', 1, 'chat')"
)


def test_approved_it_is_loaded_and_recheck_is_content(chat: Chat) -> None:
    chat.open()
    assert qg.promote("models:/chat/1", "@champion").allowed
    assert require_approval("models:/chat@champion") is not None
    code, found = chat.recheck()
    assert code == 0 and found["ok"] and found["pointers"][0]["standing"]["how"] == "approved"


def test_a_version_that_was_made_again_is_not_the_one_that_was_approved(chat: Chat) -> None:
    chat.open()
    qg.promote("models:/chat/1", "@champion")
    qg.promote("models:/chat/1", "Production")
    chat.client.delete_registered_model_alias("chat", "champion")
    chat.store.transition_model_version_stage("chat", "1", "Archived", False)
    chat.client.delete_model_version("chat", "1")
    chat.client.delete_registered_model("chat")
    chat.client.create_registered_model("chat")
    chat.client.create_model_version("chat", str(chat.folder / "saved"))
    chat.sql(AROUND)
    assert chat.how() == ["unknown"]  # its alias was taken away before
    chat.sql("DELETE FROM quantgov_ledger WHERE kind = 'alias-removed'")
    assert chat.how() == ["re-created"]
    with pytest.raises(UsageError, match="is another one with its number"):
        require_approval("models:/chat@champion")
    assert chat.recheck()[0] == 1


def test_a_source_that_was_changed_in_the_database_is_found(chat: Chat) -> None:
    chat.open()
    qg.promote("models:/chat/1", "@champion")
    shutil.copytree(chat.folder / "saved", chat.folder / "elsewhere")
    for column in ("source", "storage_location"):
        before = chat.client.get_model_version("chat", "1").source
        chat.sql(f"UPDATE model_versions SET {column} = '{chat.folder / 'elsewhere'}'")
        assert chat.how() == ["re-pointed"]
        with pytest.raises(TamperingError, match="its source is not the one that was judged"):
            require_approval("models:/chat@champion")
        assert chat.recheck("chat")[0] == 4
        chat.sql(f"UPDATE model_versions SET {column} = '{before}'")
    assert chat.how() == ["approved"]


def test_other_bytes_are_exit_4(chat: Chat) -> None:
    chat.open()
    qg.promote("models:/chat/1", "@champion")
    config = chat.folder / "saved" / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    code, found = chat.recheck()
    assert code == 4 and found["pointers"][0]["altered"]
    shown = CliRunner().invoke(cli, ["recheck"], standalone_mode=False)
    assert "altered" in shown.stdout


def test_what_moved_around_the_gate_is_not_believed_even_where_it_once_stood(chat: Chat) -> None:
    chat.open()
    chat.client.create_model_version("chat", str(chat.folder / "saved"))
    for version in ("1", "2"):
        qg.promote(f"models:/chat/{version}", "@champion")
    chat.sql("UPDATE registered_model_aliases SET version = 1")
    assert chat.how() == ["unknown"]
    with pytest.raises(UsageError, match="no approval"):
        require_approval("models:/chat@champion")
    qg.promote("models:/chat/1", "@champion")
    assert chat.how() == ["approved"]


def test_an_alias_that_is_spelled_otherwise_is_another_pointer(chat: Chat) -> None:
    chat.open()
    chat.client.create_model_version("chat", str(chat.folder / "saved"))
    qg.promote("models:/chat/1", "@champion")
    # The gate refuses a second spelling; only where it observes two of them stand beside each other.
    chat.open(mode="observe")
    chat.store.set_registered_model_alias("chat", "Champion", "2")
    assert chat.how() == ["approved", "approved"]
    chat.sql("UPDATE registered_model_aliases SET version = 1")
    assert sorted(chat.how()) == ["approved", "unknown"]


def test_creating_a_version_in_a_protected_model_moves_nothing(chat: Chat) -> None:
    chat.open()
    text = (chat.folder / "policy.yaml").read_text().replace('models: "*",', 'models: "*", create: gated,')
    qg.promote("models:/chat/1", "@champion")
    (chat.folder / "policy.yaml").write_text(text)
    chat.store = open_store(f"quantgov:{chat.database}")
    chat.store.create_model_version("chat", str(chat.folder / "saved"))
    assert chat.store.quantgov_ledger("chat")[0]["version"] == "2"
    assert chat.how() == ["approved"]


def test_a_stage_that_was_left_is_left(chat: Chat) -> None:
    chat.open()
    chat.client.create_model_version("chat", str(chat.folder / "saved"))
    for version in ("1", "2"):
        qg.promote(f"models:/chat/{version}", "Production")
    assert chat.how() == ["approved", "approved"]
    chat.store.transition_model_version_stage("chat", "1", "Archived", False)
    chat.sql("UPDATE model_versions SET current_stage = 'Production'")
    assert sorted(chat.how()) == ["approved", "unknown"]


def test_a_name_that_was_given_to_another_model_inherits_nothing(chat: Chat) -> None:
    chat.open()
    qg.promote("models:/chat/1", "@champion")
    chat.client.delete_registered_model_alias("chat", "champion")
    chat.client.rename_registered_model("chat", "old")
    chat.sql(AROUND.replace("'chat'", "'old'"))
    assert [one["how"] for one in chat.store.quantgov_pointers("old")] == ["unknown"]
    chat.client.create_registered_model("chat")
    chat.client.create_model_version("chat", str(chat.folder / "saved"))
    chat.sql(AROUND, "DELETE FROM quantgov_ledger WHERE kind = 'alias-removed'")
    assert chat.how() == ["re-created"]


def test_a_name_that_a_model_got_while_the_gate_observed_has_no_approval_of_its_own(chat: Chat) -> None:
    """The ledger explains how the pointer came there, so that an audit is content; nobody judged it by that name."""
    chat.open(mode="observe")
    qg.promote("models:/chat/1", "@champion")
    assert chat.how() == ["approved"]
    chat.client.rename_registered_model("chat", "talk")
    chat.open()
    assert chat.store.quantgov_verify().ok
    assert [one["how"] for one in chat.store.quantgov_pointers("talk")] == ["renamed"]
    with pytest.raises(UsageError, match="under another name"):
        require_approval("models:/talk@champion")
    qg.promote("models:/talk/1", "@champion")
    assert require_approval("models:/talk@champion") is not None


def test_another_policy_takes_nothing_back_and_recheck_says_what_it_would_refuse(chat: Chat) -> None:
    chat.open()
    qg.promote("models:/chat/1", "@champion")
    chat.open("identity, rollback-archive")
    assert require_approval("models:/chat@champion") is not None
    code, found = chat.recheck()
    assert code == 3 and not found["ok"]
    one = found["pointers"][0]
    assert (one["standing"]["how"], one["decision"]["decision"], one["altered"]) == ("approved", "refused", False)
    shown = CliRunner().invoke(cli, ["recheck"], standalone_mode=False)
    assert "rollback-archive" in shown.stdout and "Fix:" in shown.stdout
    # Nothing was written or moved by looking.
    assert chat.store.quantgov_ledger("chat")[0]["kind"] == "promotion"


def test_decisions_of_before_are_bound_by_their_time(chat: Chat) -> None:
    chat.open()
    qg.promote("models:/chat/1", "@champion")
    chat.sql("UPDATE quantgov_ledger SET body = replace(body, '\"judged\"', '\"was\"') WHERE kind = 'promotion'")
    assert chat.how() == ["approved"] and require_approval("models:/chat@champion") is not None
    later = int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1000)
    chat.sql(f"UPDATE model_versions SET creation_time = {later}")
    assert chat.how() == ["re-created"]


def wait_for_midnight_if_it_is_near() -> None:
    """Days of grace are those of UTC: in the last minute of one, what is asked later would be asked on the next."""
    left = 86_400 - time.time() % 86_400
    if left < 60:
        time.sleep(left + 1)


@pytest.mark.parametrize(("left", "believed"), [(30, True), (1, True), (0, False), (-5, False)])
def test_what_stood_before_the_gate_has_its_grace(chat: Chat, left: int, believed: bool) -> None:
    chat.sql(AROUND)
    wait_for_midnight_if_it_is_near()
    until = datetime.now(UTC).date() + timedelta(days=left - 1)
    chat.open(extra=f"inherited: {{grace_until: {until}}}\n")
    (found,) = chat.store.quantgov_pointers()
    assert (found["how"], found["believed"], found["days_left"]) == ("inherited", believed, left)
    with sqlalchemy.create_engine(chat.database).connect() as connection:
        aliases = connection.execute(sqlalchemy.text("SELECT alias, version FROM registered_model_aliases")).all()
    assert aliases == [("champion", 1)]  # nothing is moved by itself
    shown = CliRunner().invoke(cli, ["doctor"], standalone_mode=False).stdout
    if believed:
        require_approval("models:/chat@champion")
        assert f"{left} days of grace left" in " ".join(shown.split())
    else:
        with pytest.raises(UsageError, match="its grace ended"):
            require_approval("models:/chat@champion")
        assert "is not loaded" in " ".join(shown.split())
    # Judged on its own, it is approved for good.
    assert qg.promote("models:/chat/1", "@champion").allowed
    assert chat.how() == ["approved"]


def test_without_a_date_what_was_inherited_stays_and_what_was_observed_does_not(chat: Chat) -> None:
    chat.open("rollback-archive", "observe")
    found = CliRunner().invoke(cli, ["promote", "models:/chat/1", "--to", "@champion"], standalone_mode=False)
    assert found.return_value == 0 and "observing only" in found.stdout
    assert require_approval("models:/chat@champion") is None
    chat.open("rollback-archive")
    assert chat.how() == ["observed"]
    with pytest.raises(UsageError, match="while the gate only observed"):
        require_approval("models:/chat@champion")
    later = date.today() + timedelta(days=2)
    chat.open("rollback-archive", extra=f"inherited: {{grace_until: {later}}}\n")
    assert require_approval("models:/chat@champion") is not None


def test_one_rule_may_observe_while_the_others_enforce(chat: Chat) -> None:
    store = chat.open("rollback-archive")
    text = (chat.folder / "policy.yaml").read_text()
    rule = '{models: "try-*", mode: observe, destinations: {"@champion": identity}}'
    (chat.folder / "policy.yaml").write_text(text.replace("rules: [", f"rules: [{rule}, "))
    store = open_store(f"quantgov:{chat.database}")
    store.create_registered_model("try-it")
    store.create_model_version("try-it", str(chat.folder / "saved"))
    assert not qg.promote("models:/chat/1", "@champion").allowed
    store.set_registered_model_alias("try-it", "champion", "1")
    assert store.quantgov_ledger("try-it")[0]["decision"] == "observed"
    assert dict(store.get_registered_model("chat").aliases) == {}
    shown = " ".join(CliRunner().invoke(cli, ["doctor"], standalone_mode=False).stdout.split())
    assert "only observed, and never refused: try-*" in shown


def test_the_last_day_of_grace_is_a_day_in_utc(chat: Chat) -> None:
    chat.sql(AROUND)
    chat.open(extra="inherited: {grace_until: 2027-01-31}\n")
    policy = parse_policy((chat.folder / "policy.yaml").read_text(), source="policy.yaml")
    with chat.store._sessions() as session:
        (held,) = all_pointers(session)
        for today, left in ((date(2027, 1, 30), 2), (date(2027, 1, 31), 1), (date(2027, 2, 1), 0)):
            found, _ = standing(session, policy, held, today=today)
            assert (found.days_left, found.believed) == (left, left > 0)

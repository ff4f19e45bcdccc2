"""Names at the store's door: open on MLflow's own store, closed on the gated one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from packaging.version import Version

from mlflow_quantgov.gate.registry_store import open_store

POLICY = """
schema: quantgov/policy/v1
name: two rules
gates:
  full: {checks: [identity, task-eval]}
rules:
  - {models: "prod-*", create: open, destinations: {"@champion": full, Production: full}, other_destinations: open}
  - {models: "*", destinations: {"@champion": open}, other_destinations: open}
"""
SPELLINGS = ["Champion", "CHAMPION", "Ｃhampion", "ⅽhampion", "champion\n"]
LOOKALIKES = ["champıon", "chаmpion", "chámpion"]


@pytest.fixture
def lenient(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store whose policy protects `@champion` of `prod-*`, and leaves everything that nobody named open."""
    (tmp_path / "lenient.yaml").write_text(POLICY)
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "lenient.yaml"))
    return open_store(f"quantgov:{database}")


@pytest.mark.slow
@pytest.mark.parametrize("alias", SPELLINGS + LOOKALIKES)
def test_another_spelling_of_an_alias_is_gated(lenient: Any, tmp_path: Path, skills: Path, alias: str) -> None:
    plain = SqlAlchemyStore(f"sqlite:///{tmp_path / 'plain.db'}")
    for store in (plain, lenient):
        store.create_registered_model("prod-chat")
        store.create_model_version("prod-chat", str(skills))
    if "\n" in alias and Version(mlflow.__version__) >= Version("3.18"):
        with pytest.raises(MlflowException, match="Invalid alias name"):  # MLflow closed this one itself
            plain.set_registered_model_alias("prod-chat", alias, "1")
    else:
        plain.set_registered_model_alias("prod-chat", alias, "1")  # another alias than champion, for MLflow
    with pytest.raises(MlflowException, match="quantgov refused"):
        lenient.set_registered_model_alias("prod-chat", alias, "1")
    assert dict(lenient.get_registered_model("prod-chat").aliases) == {}


@pytest.mark.parametrize("name", ["Prod-chat", "ＰROD-chat", "prod‑chat"])
def test_another_spelling_of_a_model_stands_under_the_same_rule(lenient: Any, skills: Path, name: str) -> None:
    try:
        lenient.create_registered_model(name)
    except MlflowException as error:
        assert "quantgov refused" in str(error)
        return
    lenient.create_model_version(name, str(skills))
    with pytest.raises(MlflowException, match="quantgov refused"):
        lenient.set_registered_model_alias(name, "champion", "1")


@pytest.mark.parametrize("name", ["рrod-chat", "prоd-chat", "pröd-chat", "prod–chat"])
def test_a_model_that_only_looks_protected_is_not_made(lenient: Any, database: str, name: str) -> None:
    SqlAlchemyStore(database).create_registered_model(name)  # open on plain MLflow
    SqlAlchemyStore(database).delete_registered_model(name)
    lenient.create_registered_model("sandbox")
    calls: list[Callable[[], object]] = [
        lambda: lenient.create_registered_model(name),
        lambda: lenient.create_prompt(name, None),
        lambda: lenient.rename_registered_model("sandbox", name),
    ]
    for call in calls:
        with pytest.raises(MlflowException, match="only looks like a model of the policy's rule 'prod-\\*'"):
            call()
    row = lenient.quantgov_ledger(name)[0]
    assert (row["kind"], row["decision"]) == ("denial", "refused")


@pytest.mark.parametrize(
    "sign", ["\u200b", "\u200d", "\u202e", "\u2066", "\u00ad", "\x00", "\x1b", "\r", "\ufeff", "\ufe0f", "\u3164"]
)
def test_a_name_that_no_screen_shows_whole_is_not_made(store: Any, sign: str) -> None:
    store.create_registered_model("sandbox")
    calls: list[Callable[[], object]] = [
        lambda: store.create_registered_model(f"cha{sign}t"),
        lambda: store.rename_registered_model("sandbox", f"cha{sign}t"),
        lambda: store.set_registered_model_alias("sandbox", f"candi{sign}date", "1"),
        lambda: store.create_prompt(f"cha{sign}t", None),
    ]
    for call in calls:
        with pytest.raises(MlflowException, match=r"no screen shows.*Fix: use") as raised:
            call()
        assert raised.value.get_http_status_code() == 400
        assert str(raised.value.message).isprintable()
    assert [one.name for one in store.search_registered_models()] == ["sandbox"]


def test_a_name_longer_than_every_database_holds_is_not_made(store: Any) -> None:
    with pytest.raises(MlflowException, match="5,000 characters"):
        store.create_registered_model("x" * 5000)


def test_a_gated_alias_has_one_spelling_in_a_model(store: Any, sklearn_like: Callable[[str], str]) -> None:
    version = sklearn_like("iris")
    store.set_registered_model_alias("iris", "champion", version)
    with pytest.raises(MlflowException, match=r"is written 'champion' in this model.*Fix: use champion"):
        store.set_registered_model_alias("iris", "Champion", version)
    store.set_registered_model_alias("iris", "candidate", version)
    store.set_registered_model_alias("iris", "champion", sklearn_like("iris"))


@pytest.mark.parametrize("name", ["模型-7b", "modèle", "chat bot", "🙂", "it's <b>"])
def test_names_that_people_give_are_let_in(store: Any, name: str) -> None:
    store.create_registered_model(name)
    assert store.get_registered_model(name).name == name


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_where_a_rule_only_observes_no_name_is_refused(
    mode: str, database: str, tmp_path: Path, skills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the policy's own mode is; and what looks like a model of a rule that enforces is refused all the same."""
    observing = '  - {models: "try-*", mode: observe, destinations: {"@champion": full}, other_destinations: open}\n'
    text = POLICY.replace("gates:", f"mode: {mode}\ngates:", 1).replace("rules:\n", f"rules:\n{observing}")
    text = text.replace('models: "prod-*",', 'models: "prod-*", mode: enforce,')
    (tmp_path / "policy.yaml").write_text(text)
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    store: Any = open_store(f"quantgov:{database}")
    store.create_registered_model("try-it")
    store.create_model_version("try-it", str(skills))
    for alias in ("champion", "Champion", *LOOKALIKES):
        store.set_registered_model_alias("try-it", alias, "1")
    store.create_registered_model("trу-it")  # looks like a model of a rule that refuses nothing
    store.create_registered_model("prod-chat")
    store.create_model_version("prod-chat", str(skills))
    with pytest.raises(MlflowException, match="looks like"):
        store.create_registered_model("рrod-chat")
    with pytest.raises(MlflowException, match="quantgov refused"):
        store.set_registered_model_alias("prod-chat", "chаmpion", "1")

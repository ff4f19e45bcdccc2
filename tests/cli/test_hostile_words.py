"""Names and reasons that try to steer a terminal, to begin another line, or to be markup: shown, and nothing else."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from rich.table import Table

from mlflow_quantgov.cli import output
from mlflow_quantgov.errors import UsageError, visible
from mlflow_quantgov.flavor.registration import in_markdown
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.policy.checks.interface import Question
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.facts import Facts
from mlflow_quantgov.policy.schema import Gate, Yardsticks

STEERING = "a\x1b[2J\x1b]0;t\x07\x9b31m\u202eb\u2066\u200f\ufeff"


@given(st.text())
def test_what_is_visible_steers_nothing_and_stays_so(text: str) -> None:
    shown = visible(text)
    assert not set("\x1b\x9b\x07\u202e\u2066\u200f\u2028\r\0") & set(shown) and visible(shown) == shown
    assert "\n" not in visible(text, keep="")
    UsageError(text).one_line().encode()


def test_words_that_need_joiners_keep_them() -> None:
    for text in ("می\u200cخواهم", "👩\u200d🚀", "naïve é", "a\tb\nc"):
        assert visible(text) == text


@given(st.text(alphabet=st.sampled_from("ab\x1b[]<>!`\\\n\u202e()")))
def test_no_words_in_a_description_are_markup(text: str) -> None:
    shown = in_markdown(text)
    bare = shown.replace("\\\\", "")
    for sign in "[]<>!`":
        assert bare.count(sign) == bare.count(f"\\{sign}")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns gets."""
    screen = io.StringIO()
    console = type(output.stdout)(file=screen, force_terminal=True, width=80, markup=False, highlight=False)
    monkeypatch.setattr(output, "stdout", console)
    return screen


def without_style(text: str) -> str:
    """Text without the colours that this package itself asks for."""
    return re.sub("\x1b\\[[0-9;]*m", "", text)


def test_a_decision_is_printed_as_it_is_whatever_it_names(screen: io.StringIO) -> None:
    check = CheckResult("task-eval", "fail", f"{STEERING}\nquantgov allowed all", fix=f"run {STEERING}")
    decision = Decision(False, "@x", f"chat{STEERING}\nallowed", "1", f"p{STEERING}", "sha256:1", "enforce", (check,), (),
                        labels=(STEERING,), summary=STEERING)  # fmt: skip
    output.print_decision(decision)
    output.pairs_table(STEERING, {STEERING: STEERING, "list": [STEERING]})
    table = Table(STEERING)
    table.add_row(STEERING)
    output.stdout.print(table, STEERING)
    printed = without_style(screen.getvalue())
    assert visible(printed) == printed and "\\x1b" in printed and "\\u202e" in printed
    assert not any(line.startswith("allowed") for line in printed.splitlines())
    assert "\n" not in decision.one_line() and visible(decision.one_line()) == decision.one_line()


def test_the_ledger_of_a_hostile_name_is_a_table(
    run_in_store: Callable[..., tuple[int, str, str]], new_sqlite_database: Callable[[], str], skills: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name, uri = "chat\nallowed \x1b[31m\u202e`{{7*7}}`=1+1", f"quantgov:{new_sqlite_database()}"
    shutil.copytree(skills, tmp_path / "logged" / "model")
    # There before the gate was.
    plain = SqlAlchemyStore(uri.removeprefix("quantgov:"))
    plain.create_registered_model(name)
    plain.create_model_version(name, str(tmp_path / "logged"))
    store: Any = open_store(uri)
    with pytest.raises(MlflowException) as refused:
        store.set_registered_model_alias(name, "champion", "1")
    assert visible(refused.value.message, keep="") == refused.value.message
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    mlflow.set_registry_uri(uri)
    code, out, err = run_in_store("audit", "log")
    mlflow.set_registry_uri(None)
    assert code == 0 and visible(out) == out and "chat" in out, err
    assert not any(line.strip().startswith("allowed") for line in out.splitlines())


@pytest.mark.parametrize(
    "name", ["$(touch ran)", "`touch ran`", "x; touch ran", "x' 'y", '"; touch ran; "', "a b", "\n touch ran"]
)
def test_a_command_to_paste_runs_nothing_that_a_name_says(tmp_path: Path, name: str) -> None:
    facts = Facts(name, "1", "unknown", datetime.now(UTC), problems=("p",))
    uri = Question(Gate(checks=()), Yardsticks(), facts).uri
    done = subprocess.run(["sh", "-c", f"printf %s {uri}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"models:/{visible(name, keep='')}/1" and list(tmp_path.glob("ran")) == []
    assert Question(Gate(checks=()), Yardsticks(), replace(facts, name="chat")).uri == "models:/chat/1"

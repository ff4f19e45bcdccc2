"""`quantgov spot-check` on real models: an honest evaluation holds, a forged one does not, and what cannot be told is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

import mlflow_quantgov as qg
from mlflow_quantgov.demo.models import SKILLS, SKILLS_TASKS
from mlflow_quantgov.evidence.predicates import SpotCheck, TaskEval
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.gate.facts.gathering import gather_client

pytestmark = pytest.mark.slow
Run = Callable[..., tuple[int, str, str]]
URI = "models:/chat/2"
LIMIT = 24


@pytest.fixture
def gated(
    run_in_store: Run, new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """A gated store with the skills model and its two-bit version, which was evaluated; nobody has archived the parent."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf

    policy: dict[str, Any] = {
        "schema": "quantgov/policy/v1",
        "name": "checked",
        "gates": {"full": {"checks": ["task-eval"], "capabilities": {"copying": {"margin": 0.9}}}},
        "rules": [{"models": "*", "destinations": {"@champion": "full"}}],
    }
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    database = new_sqlite_database()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"quantgov:{database}")
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    monkeypatch.setenv("QUANTGOV_ARCHIVE", str(tmp_path / "archive"))
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    made = quantize_gguf(gguf_twin(SKILLS, tmp_path / "twin").path, tmp_path / "q2.gguf", "Q2_K").path
    for arguments in (
        ("log-parent", str(SKILLS), "--name", "parent", "--register", "chat"),
        (
            "log",
            str(made),
            "--parent",
            "models:/chat/1",
            "--target",
            "cpu-llamacpp",
            "--name",
            "q",
            "--register",
            "chat",
        ),
        ("evaluate", URI, "--tasks", str(SKILLS_TASKS), "--limit", str(LIMIT)),
    ):
        code, _, err = run_in_store(*arguments)
        assert code == 0, err
    return run_in_store


def check(run: Run, *more: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = run("spot-check", URI, "--tasks", str(SKILLS_TASKS), "--json", *more)
    return code, json.loads(out)


def recorded() -> TaskEval:
    facts = gather_client(mlflow.MlflowClient(), "chat", "2")
    content = facts.of_kind("task-eval")[-1].content
    assert isinstance(content, TaskEval)
    return content


def forged(content: TaskEval, share: int = 1) -> TaskEval:
    """Of every so many items, the quantized version is said to have answered as the parent did."""
    tasks = tuple(
        task.model_copy(
            update={
                "items": tuple(
                    item.model_copy(update={"quantized": item.parent}) if number % share == 0 else item
                    for number, item in enumerate(task.items)
                )
            }
        )
        for task in content.tasks
    )
    values = {name: getattr(content, name) for name in TaskEval.model_fields if name != "summary"}
    return TaskEval.measured(**(values | {"tasks": tasks}))


def attach(content: TaskEval) -> Statement:
    statement = Statement.about(content.quantized.weights, content, name="chat")
    qg.attach(URI, statement)
    return statement


def test_an_honest_evaluation_holds_and_a_forged_one_does_not(gated: Run) -> None:
    code, found = check(gated)
    assert code == 3 and found["outcome"] == "inconclusive" and "archive" in found["numbers"]["reason"]
    assert gated("archive", URI)[0] == 0

    code, found = check(gated, "--items", str(3 * LIMIT))
    numbers = found["numbers"]
    assert (code, numbers["items"], numbers["differ"], numbers["tolerated"]) == (0, 3 * LIMIT, 0, 0), numbers
    assert set(numbers["hidden"].values()) == {0.0}
    code, out, _ = gated("spot-check", URI, "--tasks", str(SKILLS_TASKS), "--items", "20")
    words = " ".join(out.split())
    assert code == 0 and "all 20 items agree" in words and f"items 20 of {3 * LIMIT}" in words
    assert "would have stayed hidden with probability 5% 0." in words

    code, _, err = gated("spot-check", URI, "--tasks", str(SKILLS_TASKS), "--items", "2")
    assert code == 3 and f"--items 4 --tasks {SKILLS_TASKS}" in " ".join(err.split())

    # From here on all items: which ones are drawn is the server's to say, and two of a forged evaluation may be honest or not.
    honest = recorded()
    statement = attach(forged(honest, 2))
    code, found = check(gated, "--items", str(3 * LIMIT))
    assert code == 1 and found["outcome"] == "fail" and found["numbers"]["differ"] > 0
    code, out, _ = gated("check", URI, "--to", "@champion", "--json")
    (task,) = json.loads(out)["checks"]
    assert statement.digest not in task["evidence"], task
    wanted = ("--statement", statement.digest, "--items", str(3 * LIMIT))
    code, _, err = gated("spot-check", URI, "--tasks", str(SKILLS_TASKS), *wanted)
    assert code == 1
    assert f"Fix: measure it again, and look at who attached the evaluation: quantgov evaluate {URI}" in err
    assert "nobody signed this spot-check" in " ".join(err.split())


def test_other_batches_do_not_refute_an_honest_evaluation(gated: Run) -> None:
    """Asked alone a near tie may fall otherwise; among its neighbours every item is what was recorded."""
    assert gated("archive", URI)[0] == 0
    content = qg.spot_check(URI, items=3 * LIMIT, tasks=SKILLS_TASKS).content()
    assert isinstance(content, SpotCheck) and content.parent_tolerance and content.quantized_tolerance
    assert content.parent_tolerance.exact and content.quantized_tolerance.exact, content.quantized_tolerance.why
    assert content.stated()["outcome"] == "pass", content.stated()


def test_other_settings_are_compared_by_score_and_said_so(gated: Run) -> None:
    assert gated("archive", URI)[0] == 0
    honest = recorded()
    side = honest.quantized.model_copy(update={"settings": honest.quantized.settings | {"threads": 999}})
    values = {name: getattr(honest, name) for name in TaskEval.model_fields if name != "summary"}
    attach(TaskEval.measured(**(values | {"quantized": side})))
    content = qg.spot_check(URI, items=40, tasks=SKILLS_TASKS).content()
    assert isinstance(content, SpotCheck) and content.quantized_tolerance
    assert not content.quantized_tolerance.exact and "threads was 999" in content.quantized_tolerance.why
    assert content.stated()["outcome"] == "pass" and content.stated()["tolerated"] > 0


def test_what_is_not_here_is_one_clear_line(gated: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in SKILLS_TASKS.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    with (other / "text.jsonl").open("a") as file:
        file.write('{"text": "more"}\n')
    code, out, _ = gated("spot-check", URI, "--tasks", str(other), "--json")
    assert code == 2 and "was evaluated with other files" in json.loads(out)["error"]["message"]
    code, out, _ = gated("spot-check", URI, "--json")
    assert code == 2 and "--tasks DIR" in json.loads(out)["error"]["fix"]
    code, out, _ = gated("spot-check", URI, "--tasks", str(SKILLS_TASKS), "--statement", "sha256:" + "9" * 64, "--json")
    assert code == 2 and "has no task evaluation sha256:9" in json.loads(out)["error"]["message"]
    code, out, _ = gated("spot-check", "models:/chat/1", "--tasks", str(SKILLS_TASKS), "--json")
    assert code == 2 and "names no parent" in json.loads(out)["error"]["message"]
    honest = recorded()
    elsewhere = honest.quantized.model_copy(update={"runtime": "mars"})
    values = {name: getattr(honest, name) for name in TaskEval.model_fields if name != "summary"}
    attach(TaskEval.measured(**(values | {"quantized": elsewhere})))
    gated("archive", URI)
    code, found = check(gated)
    assert code == 3 and "mars" in found["numbers"]["reason"]
    lines = tmp_path / "scores.jsonl"
    lines.write_text("".join(json.dumps({"id": n, "score": 1.0, "output": "x"}) + "\n" for n in range(30)))
    qg.import_scores(URI, "jsonl", lines, lines, capability="copying")
    code, found = check(gated)
    assert code == 3 and "made elsewhere" in found["numbers"]["reason"]

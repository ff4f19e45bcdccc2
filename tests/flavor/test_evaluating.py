"""`quantgov evaluate` on registered versions: planned before, from elsewhere, by the policy's metric; bad input attaches nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

import mlflow_quantgov as qg
from mlflow_quantgov.api.evaluating import policy_in_force
from mlflow_quantgov.cli import main
from mlflow_quantgov.demo.models import SKILLS_TASKS
from mlflow_quantgov.evidence.predicates import TaskEval

URI = "models:/chat/1"
LOGS = Path(__file__).parents[1] / "data" / "inspect"
SAID = ("addition=multi-step-reasoning", "reversal=edge-cases", "copying=instruction-following")


@pytest.fixture
def version(client: mlflow.MlflowClient, skills: Path, tmp_path: Path) -> mlflow.MlflowClient:
    """The skills model at 8 bit, registered with its parent."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf

    made = quantize_gguf(gguf_twin(skills, tmp_path / "twin").path, tmp_path / "q8.gguf", "Q8_0").path
    qg.log_parent(skills, name="skills", registered_model_name="skills")
    qg.log_model(made, name="q", parent="models:/skills/1", target="cpu-llamacpp", registered_model_name="chat")
    return client


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", URI, *arguments, "--json"])
    return int(stopped.value.code or 0), json.loads(capsys.readouterr().out)


def attached(client: mlflow.MlflowClient) -> list[str]:
    """Evidence that lies beside the version."""
    model_id = client.get_model_version("chat", "1").source.removeprefix("models:/")
    return [one.path for one in client.list_logged_model_artifacts(model_id, "quantgov") if "evidence" in one.path]


def lines(path: Path, scores: list[float], **more: Any) -> str:
    rows = [{"id": n, "score": score} | more for n, score in enumerate(scores)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_scores_from_elsewhere_are_attached_and_labelled(
    version: mlflow.MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = lines(tmp_path / "p.jsonl", [1.0] * 200, output="x")
    code, found = run(capsys, "--from-jsonl", good, good, "--capability", "edge-cases")
    assert code == 0 and found["attached"] and found["numbers"]["edge-cases"]["items"] == 200
    assert len(attached(version)) == 1
    code, found = run(capsys, "--from-inspect", str(LOGS / "parent.eval"), str(LOGS / "quantized.eval"))
    assert code == 0 and found["numbers"]["sums"]["lost"] == 2
    statement = qg.import_scores(URI, "jsonl", good, good, capability="edge-cases").content()
    assert isinstance(statement, TaskEval) and statement.provenance.imported
    decision = qg.check(URI, "@champion")
    reason = next(check.reason for check in decision.checks if check.check == "task-eval")
    assert "multi-step-reasoning" in reason or "instruction-following" in reason

    # Without the answers nobody can tell such scores from multiple choice.
    bare = lines(tmp_path / "bare.jsonl", [1.0] * 200)
    for capability in ("multi-step-reasoning", "instruction-following", "edge-cases"):
        assert run(capsys, "--from-jsonl", bare, bare, "--capability", capability)[0] == 0
    decision = qg.check(URI, "@champion")
    task = next(check for check in decision.checks if check.check == "task-eval")
    assert task.outcome == "missing" and "imported without the answers" in task.reason


@pytest.mark.slow
def test_a_plan_says_what_is_needed_and_attaches_nothing(
    version: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part for one in SAID[:2] for part in ("--capability", one)]
    code, found = run(capsys, "--tasks", str(SKILLS_TASKS), "--plan", *given)
    assert code == 0 and found["minutes"] is None and found["destination"] == "@champion" and not found["enough"]
    by_name = {one["capability"]: one for one in found["capabilities"]}
    assert by_name["instruction-following"]["note"].startswith("missing: no task measures it")
    assumed = by_name["multi-step-reasoning"]
    assert (assumed["assumed_from"], assumed["discordance"]) == ("policy", pytest.approx(0.1))
    assert assumed["items"] < assumed["items_needed"] and assumed["power"] < 0.8

    code, rare = run(capsys, "--tasks", str(SKILLS_TASKS), "--plan", "--discordance", "0.001", *given)
    rarely = next(one for one in rare["capabilities"] if one["capability"] == "multi-step-reasoning")
    assert rarely["assumed_from"] == "stated" and 149 <= rarely["items_needed"] < assumed["items_needed"]

    code, tried = run(capsys, "--tasks", str(SKILLS_TASKS), "--plan", "--pilot", "16", *given)
    assert code == 0 and tried["pilot_items"] == 48 and tried["minutes"] > 0
    assert {one["assumed_from"] for one in tried["capabilities"] if one["tasks"]} == {"pilot"}
    assert not attached(version)


@pytest.mark.slow
def test_a_plan_is_readable(version: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", URI, "--tasks", str(SKILLS_TASKS), "--plan", "--pilot", "4"])
    out = capsys.readouterr().out
    assert (
        "multi-step-reasoning " in out
        and "needed" in out
        and ", as 12 items of the pilot took" in out
        and "nothing was attached" in out
    )


WRONG: list[tuple[list[str], str]] = [
        ([], "nothing to evaluate"),
        (["--tasks", "x", "--task", "gsm8k"], "given together"),
        (["--from-jsonl", "a", "b", "--tasks", "x"], "given together"),
        (["--from-jsonl", "a", "b"], "takes one --capability NAME"),
        (["--from-jsonl", "a", "b", "--capability", "t=x"], "takes one --capability NAME"),
        (["--from-jsonl", "a", "b", "--capability", "x"], "a does not exist"),
        (["--from-inspect", "a", "b"], "a does not exist"),
        (["--from-lm-eval", "a", "b"], "a does not exist"),
        (["--tasks", "x", "--plan", "--limit", "3"], "--plan goes with"),
        (["--tasks", "x", "--pilot", "3"], "go with --plan"),
        (["--tasks", str(SKILLS_TASKS), "--plan", "--to", "@candidate"], "demands no capability"),
        (["--tasks", str(SKILLS_TASKS), "--plan", "--discordance", "2"], "not above 0 and at most 1"),
        (["--tasks", str(SKILLS_TASKS), "--served-parent", "x.yaml"], "does not describe an endpoint"),
        (["--tasks", "x", "--served", "a", "b", "--served-parent", "c"], "names both sides already"),
]  # fmt: skip


@pytest.mark.slow
def test_a_wrong_request_is_one_clear_line_and_attaches_nothing(
    version: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in WRONG:
        code, found = run(capsys, *arguments)
        assert code == 2 and words in found["error"]["message"] and found["error"]["fix"], arguments
    assert not attached(version)


def test_where_nothing_is_gated_the_default_policy_counts(client: mlflow.MlflowClient) -> None:
    assert policy_in_force().name == "default"

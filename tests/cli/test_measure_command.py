"""`quantgov measure --all`: what it plans, in which order, when it stops, and what it shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_quantgov.api import Given
from mlflow_quantgov.api.measuring_all import planned
from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf
from mlflow_quantgov.policy.decision import CheckResult, Decision, Outcome

DEMO = Path(__file__).parents[2] / "src" / "mlflow_quantgov" / "demo" / "tasks" / "skills"
URI = "models:/skills/2"
Run = Callable[..., tuple[int, str, str]]
EVERYTHING = Given(tasks="tasks", text="text.jsonl", calibration="c.jsonl", production="p.jsonl")


def decision(**outcomes: Outcome) -> Decision:
    checks = tuple(CheckResult(name.replace("_", "-"), outcome, "said") for name, outcome in outcomes.items())
    return Decision(False, "@champion", "m", "1", "p", "sha256:0", "enforce", checks, ())


MISSING = decision(
    task_eval="missing",
    benchmark="missing",
    rollback_archive="missing",
    kernel_support="missing",
    calibration="missing",
)


def kinds(found: Decision, given: Given = EVERYTHING, **options: bool) -> list[str]:
    return [step.kind for step in planned(found, given, URI, **options)]


def test_what_is_cheap_comes_first() -> None:
    assert kinds(MISSING) == ["kernels", "calibration", "archive", "drill", "benchmark", "fidelity", "task-eval"]


def test_what_is_settled_or_does_not_apply_is_not_measured() -> None:
    some = decision(kernel_support="pass", calibration="not-applicable", benchmark="inconclusive", task_eval="waived")
    assert kinds(some, Given()) == ["benchmark"]
    assert kinds(some, EVERYTHING, again=True) == ["kernels", "benchmark", "fidelity", "task-eval"]


def test_a_check_that_the_gate_does_not_ask_for_is_not_measured() -> None:
    assert kinds(decision(identity="pass", lineage="pass", format_fit="missing")) == []


def test_what_cannot_run_says_which_option_it_lacks() -> None:
    steps = {step.kind: step for step in planned(MISSING, Given(), URI)}
    assert [kind for kind, step in steps.items() if step.state == "lacking"] == ["calibration", "task-eval"]
    assert "--calibration FILE --production FILE" in steps["calibration"].fix
    assert "--tasks DIR" in steps["task-eval"].fix
    assert "fidelity" not in steps


def below_four(*conditions: str, outcome: Outcome = "missing", **others: Outcome) -> Decision:
    """A version whose width still needs something."""
    unmet = [{"condition": one, "outcome": "missing", "reason": f"{one}!", "fix": f"mend {one}"} for one in conditions]
    width = CheckResult("bit-width", outcome, "said", numbers={"unmet": unmet})
    return replace(decision(**others), checks=(width, *decision(**others).checks))


def test_below_four_bit_what_people_have_to_do_stands_first() -> None:
    steps = planned(below_four("budget", "wider", "training", "within", task_eval="missing"), EVERYTHING, URI)
    assert [(one.kind, one.check, one.state, one.said, one.fix) for one in steps[:3]] == [
        ("budget", "bit-width", "lacking", "budget!", "mend budget"),
        ("wider-version", "bit-width", "lacking", "wider!", "mend wider"),
        ("training", "bit-width", "lacking", "training!", "mend training"),
    ]
    # Measured before the wider version, it had to be measured again.
    assert (steps[-1].kind, steps[-1].state) == ("task-eval", "lacking") and "wider version" in steps[-1].said
    (alone,) = planned(below_four("training"), Given(), URI)
    assert (alone.kind, alone.state) == ("training", "lacking")


@pytest.mark.parametrize("condition", ["within", "order"])
def test_an_evaluation_that_only_the_width_still_needs_is_planned(condition: str) -> None:
    (step,) = planned(below_four(condition), Given(tasks="tasks"), URI)
    assert (step.kind, step.check, step.state) == ("task-eval", "bit-width", "planned")
    both = planned(below_four(condition, task_eval="inconclusive"), Given(tasks="tasks"), URI)
    assert [(one.kind, one.check) for one in both] == [("task-eval", "task-eval")]


def test_a_width_that_passes_or_is_waived_plans_nothing() -> None:
    assert kinds(below_four(outcome="pass")) == kinds(below_four("training", outcome="waived")) == []


@pytest.mark.slow
def test_a_version_below_four_bit_is_told_what_it_lacks(run: Run, skills: Path, tmp_path: Path) -> None:
    log(run, quantize_gguf(gguf_twin(skills, tmp_path).path, tmp_path / "Q2_K.gguf", "Q2_K").path)
    _, out, _ = run("measure", URI, "--all", "--tasks", str(DEMO), "--json")
    steps = {step["kind"]: step for step in json.loads(out)["steps"]}
    assert {steps[kind]["state"] for kind in ("wider-version", "training", "task-eval")} == {"lacking"}
    assert "budget" not in steps and "evaluated first" in steps["wider-version"]["said"]
    assert steps["training"]["fix"].startswith(f"quantgov training {URI} --checkpoint")
    _, out, _ = run("measure", URI, "--all")
    said = " ".join(out.split())
    assert "wider-version cannot run" in said and "training cannot run" in said, said
    assert re.search(rf"Fix: quantize the parent at 4 bit; .*; quantgov training {URI} ", said), said


def test_all_must_be_said(command: Run) -> None:
    code, _, error = command("measure", URI)
    assert code == 2 and "Fix: quantgov measure models:/skills/2 --all" in error


@pytest.fixture
def run(run_in_store: Run, skills: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against a store with the skills model as version 1; gives exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "140")
    assert run_in_store("log-parent", str(skills), "--name", "parent", "--register", "skills")[0] == 0
    return run_in_store


def log(run: Run, path: Path) -> None:
    to = ["--parent", "models:/skills/1", "--target", "cpu-llamacpp", "--name", "quantized", "--register", "skills"]
    code, _, error = run("log", str(path), *to)
    assert code == 0, error


@pytest.mark.slow
def test_everything_is_measured_and_then_nothing_is_left(
    run: Run, skills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGOV_ARCHIVE", str(tmp_path / "archive"))
    log(run, quantize_gguf(gguf_twin(skills, tmp_path).path, tmp_path / "Q8_0.gguf", "Q8_0").path)
    command = ("measure", URI, "--all", "--tasks", str(DEMO), "--keep-going", "--json")
    code, out, _ = run(*command)
    found = json.loads(out)
    states = {step["kind"]: step["state"] for step in found["steps"]}
    # A shipped target is a template: no machine matches it, and the benchmark says so or is attached and does not count.
    assert code in {0, 2} and {states[kind] for kind in ("kernels", "archive", "drill", "task-eval")} == {"attached"}
    by_check = {step["check"]: step["outcome"] for step in found["steps"] if step["state"] == "attached"}
    decided = {one["check"]: one["outcome"] for one in found["decision"]["checks"]}
    assert by_check["kernel-support"] == decided["kernel-support"] == "pass"
    assert decided["rollback-archive"] == "pass"
    again = json.loads(run(*command)[1])
    assert not {"kernels", "archive", "drill"} & {step["kind"] for step in again["steps"]}
    code, out, error = run("measure", URI, "--all", "--again", "--keep-going", "--tasks", str(DEMO))
    assert "kernels  attached" in error and "rollback-archive" in out


@pytest.mark.slow
def test_a_check_that_has_failed_spares_the_rest(run: Run, skills: Path, tmp_path: Path) -> None:
    log(run, quantize_gguf(gguf_twin(skills, tmp_path).path, tmp_path / "Q8_0.gguf", "Q8_0").path)
    other = json.dumps({"schema": "quantgov/target/v1", "name": "gpu", "runtime": "vllm", "formats": ["gptq"],
                        "hardware": {"device": "cuda"}})  # fmt: skip
    (tmp_path / "gpu.yaml").write_text(other)
    to = ["--parent", "models:/skills/1", "--target", str(tmp_path / "gpu.yaml"), "--name", "q", "--register", "skills"]
    assert run("log", str(tmp_path / "Q8_0.gguf"), *to)[0] == 0
    code, out, _ = run("measure", "models:/skills/3", "--all", "--tasks", str(DEMO), "--json")
    found = json.loads(out)
    assert (code, found["stopped_by"]) == (0, "format-fit")
    assert {step["state"] for step in found["steps"]} <= {"not-run", "lacking"}
    code, out, _ = run("measure", "models:/skills/3", "--all", "--tasks", str(DEMO))
    assert "format-fit has failed" in " ".join(out.split()) and "--keep-going" in out

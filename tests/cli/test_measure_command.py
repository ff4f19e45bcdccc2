"""`quantgov measure --all`: what it plans, in which order, when it stops, and what it shows."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mlflow_quantgov.api import Given, Measured, Step
from mlflow_quantgov.api.measuring_all import planned
from mlflow_quantgov.cli.measure_command import _Moving
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.targets import find_target
from mlflow_quantgov.policy.decision import CheckResult, Decision, Outcome

DEMO = Path(__file__).parents[2] / "src" / "mlflow_quantgov" / "demo" / "tasks" / "skills"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "measure-everything.md"
URI = "models:/skills/2"
Run = Callable[..., tuple[int, str, str]]
Log = Callable[[str], None]
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


@pytest.mark.parametrize("outcome", ["missing", "pass"])
def test_fidelity_that_is_reported_already_is_not_measured_again(outcome: Outcome) -> None:
    beside = {"fidelity": {"tokens": 1000}}
    found = replace(decision(), checks=(CheckResult("task-eval", outcome, "said", numbers=beside),))
    assert "fidelity" not in kinds(found) and "fidelity" in kinds(found, again=True)
    assert "fidelity" in kinds(decision(task_eval=outcome))


def test_a_check_that_the_gate_does_not_ask_for_is_not_measured() -> None:
    assert kinds(decision(identity="pass", lineage="pass", format_fit="missing")) == []


def test_what_cannot_run_says_which_option_it_lacks() -> None:
    steps = {step.kind: step for step in planned(MISSING, Given(), URI)}
    assert [kind for kind, step in steps.items() if step.state == "lacking"] == ["calibration", "task-eval"]
    assert "--calibration FILE --production FILE" in steps["calibration"].fix
    assert "--tasks DIR" in steps["task-eval"].fix
    assert "fidelity" not in steps


def test_no_minutes_of_timing_where_they_would_not_count() -> None:
    template = find_target("cpu-llamacpp")

    def benchmark(**changes: object) -> Step:
        here = this_machine().model_copy(update=changes)
        hardware = template.hardware.model_copy(update={"fingerprint": here})
        declared = template.model_copy(update={"name": "mine", "hardware": hardware})
        (found,) = planned(decision(benchmark="missing"), Given(), URI, target=declared)
        return found

    (found,) = planned(decision(benchmark="missing"), Given(), URI, target=template)
    assert found.state == "lacking" and "template without a captured machine" in found.said
    assert found.fix.startswith("quantgov targets capture mine --from cpu-llamacpp; quantgov log ")
    assert benchmark().state == "planned"
    assert benchmark(cores=99).state == "lacking" and "99" in benchmark(cores=99).said
    assert f"on the target's machine: quantgov measure {URI} --all" in benchmark(cores=99).fix


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_moving_table_fits_its_terminal_and_says_what_runs_on_a_line_of_its_own(width: int) -> None:
    def shown(found: Measured | None) -> list[str]:
        screen = Console(width=width, record=True, file=io.StringIO())
        if found is not None:
            view(found)
        screen.print(view)
        return [line.rstrip() for line in screen.export_text().splitlines()]

    view = _Moving()
    assert shown(None) == ["Asking the gate what is missing ..."]
    said = "round 7: decode x1.34 (0.83 to 1.67), prefill x1.21 (1.02 to 1.44); 3 minutes left"
    steps = [
        Step("kernels", "kernel-support", "attached", seconds=4.0, outcome="pass"),
        Step("archive", "rollback-archive", "attached", seconds=17.0),
        Step("benchmark", "benchmark", "running", said, fraction=0.42),
        Step("task-eval", "task-eval", "lacking", "needs tasks"),
    ]
    lines = shown(Measured(MISSING, steps))
    assert [len(line) <= width for line in lines] == [True] * 6
    assert re.fullmatch(r"kernels +attached +pass +4 s", lines[1]) and re.fullmatch(
        r"archive +attached +17 s", lines[2]
    )
    assert re.fullmatch(r"benchmark +running +1 s +\S+ +42%", lines[3]) and lines[4].endswith("needs tasks")
    assert lines[5].startswith("benchmark: round 7: decode x1.34") and (width < 100 or lines[5].endswith(said))
    steps[2].fraction = 1.0
    assert shown(Measured(MISSING, steps))[5] == "benchmark: attaching what was found"


def test_all_must_be_said(command: Run) -> None:
    code, _, error = command("measure", URI)
    assert code == 2 and "Fix: quantgov measure models:/skills/2 --all" in error


@pytest.mark.slow
def test_everything_is_measured_and_then_nothing_is_left(
    run_with_parent: Run, log_quantized: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGOV_ARCHIVE", str(tmp_path / "archive"))
    log_quantized("Q8_0")
    command = ("measure", URI, "--all", "--tasks", str(DEMO), "--keep-going", "--json")
    code, out, _ = run_with_parent(*command)
    found = json.loads(out)
    states = {step["kind"]: step["state"] for step in found["steps"]}
    # A shipped target is a template: no machine matches it, and nothing is timed.
    assert code == 0 and states.pop("benchmark") == "lacking"
    assert states == dict.fromkeys(("kernels", "archive", "drill", "task-eval"), "attached")
    by_check = {step["check"]: step["outcome"] for step in found["steps"] if step["state"] == "attached"}
    decided = {one["check"]: one["outcome"] for one in found["decision"]["checks"]}
    assert by_check["kernel-support"] == decided["kernel-support"] == "pass"
    assert decided["rollback-archive"] == "pass"
    again = json.loads(run_with_parent(*command)[1])
    assert not {"kernels", "archive", "drill"} & {step["kind"] for step in again["steps"]}
    code, out, error = run_with_parent("measure", URI, "--all", "--again", "--keep-going", "--tasks", str(DEMO))
    assert "kernels  attached" in error and "rollback-archive" in out
    (python,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "tasks").symlink_to(DEMO)
    (tmp_path / "texts.jsonl").symlink_to(DEMO / "text.jsonl")
    names: dict[str, Any] = {}
    exec(python.replace("models:/chat/2", URI), names)
    assert {one.kind: one.state for one in names["found"].steps}.items() >= {
        ("fidelity", "attached"),
        ("benchmark", "lacking"),
    }


@pytest.mark.slow
def test_a_check_that_has_failed_spares_the_rest(run_with_parent: Run, log_quantized: Log, tmp_path: Path) -> None:
    log_quantized("Q8_0")
    other = json.dumps({"schema": "quantgov/target/v1", "name": "gpu", "runtime": "vllm", "formats": ["gptq"],
                        "hardware": {"device": "cuda"}})  # fmt: skip
    (tmp_path / "gpu.yaml").write_text(other)
    to = ["--parent", "models:/skills/1", "--target", str(tmp_path / "gpu.yaml"), "--name", "q", "--register", "skills"]
    assert run_with_parent("log", str(tmp_path / "Q8_0.gguf"), *to)[0] == 0
    code, out, _ = run_with_parent("measure", "models:/skills/3", "--all", "--tasks", str(DEMO), "--json")
    found = json.loads(out)
    assert (code, found["stopped_by"]) == (0, "format-fit")
    assert {step["state"] for step in found["steps"]} <= {"not-run", "lacking"}
    code, out, _ = run_with_parent("measure", "models:/skills/3", "--all", "--tasks", str(DEMO))
    assert "format-fit has failed" in " ".join(out.split()) and "--keep-going" in out


def in_a_terminal(folder: Path, *arguments: str, interrupt: str | None = None) -> tuple[int, str]:
    """Exit code, and all that came over a terminal 100 columns wide; Ctrl-C once some words are there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    running = subprocess.Popen(
        [sys.executable, "-m", "mlflow_quantgov", *arguments], cwd=folder, stdin=slave, stdout=slave, stderr=slave,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm-256color"},
        start_new_session=True,
        # Whoever runs tests in the background has them ignore SIGINT, and this would inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    os.close(slave)
    said = b""
    while True:
        try:
            said += os.read(master, 65536)
        except OSError:  # Linux says so where the other end is closed
            break
        if interrupt is not None and interrupt.encode() in said:
            os.killpg(running.pid, signal.SIGINT)
            interrupt = None
    os.close(master)
    return running.wait(), said.decode()


@pytest.mark.slow
def test_a_terminal_shows_one_table_that_moves_and_then_the_decision(log_quantized: Log, tmp_path: Path) -> None:
    log_quantized("Q8_0")
    command = ("measure", URI, "--all", "--store", str(tmp_path / "archive"))
    code, said = in_a_terminal(tmp_path, *command, interrupt="kernels")
    words = " ".join(said.split())
    assert code == 2 and "Stopped. What was attached stays" in words and "Fix: quantgov measure" in words
    code, said = in_a_terminal(tmp_path, *command)
    assert code == 0, said
    assert "Asking the gate what is missing" in said and "Traceback" not in said
    # What stays on the screen comes after the moving table is wiped away.
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.rpartition("\x1b[2K")[2])
    lines = [line.rstrip() for line in plain.splitlines()]
    assert max(len(line) for line in lines if not line.startswith("Fix:")) <= 100
    shown = {line.split()[0]: line for line in lines if line.strip()}
    assert re.search(r"drill +attached +pass +\d+ s", shown["drill"])
    assert re.search(r"archive +attached +\d+ s", shown["archive"])
    assert re.search(r"benchmark +cannot run +the target cpu-llamacpp is a template", plain)
    fixes = [line for line in lines if line.startswith("Fix:")]
    assert len(fixes) == len(set(fixes)) == 2 and any(
        "measure models:/skills/2 --all --tasks DIR" in one for one in fixes
    )

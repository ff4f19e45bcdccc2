"""`quantgov benchmark` and `targets capture`: what they print and record, with real models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import mlflow_quantgov
from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf

URI = "models:/skills/2"
Run = Callable[..., tuple[int, str, str]]


def test_capture_says_what_it_captured_and_what_to_change(run_in_store: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run_in_store("targets", "capture", "mine")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    for shown in ("CPU ", "cores ", "memory ", "libraries", "what counts", "has to improve", "change the file before"):
        assert shown in out
    held = yaml.safe_load(Path("mine.yaml").read_text())["hardware"]["fingerprint"]
    assert held["cpu_id"] and held["cores"] >= 1 and "cpu_limit" not in held


@pytest.fixture
def run(run_in_store: Run, skills: Path, tmp_path: Path) -> Run:
    """Runs a command against a store with the skills model, and its 8-bit version logged for this machine."""
    assert run_in_store("targets", "capture", "mine")[0] == 0
    assert run_in_store("log-parent", str(skills), "--name", "parent", "--register", "skills")[0] == 0
    path = quantize_gguf(gguf_twin(skills, tmp_path).path, tmp_path / "Q8_0.gguf", "Q8_0").path
    to = ["--parent", "models:/skills/1", "--target", "mine.yaml", "--name", "quantized", "--register", "skills"]
    code, _, error = run_in_store("log", str(path), *to)
    assert code == 0, error
    return run_in_store


@pytest.mark.slow
def test_a_version_is_timed_shown_and_judged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, error = run("benchmark", URI, "--rounds", "7")
    assert code == 0, error
    assert max(map(len, out.splitlines()[2:])) <= 80  # the digest in the first lines is not folded
    for shown in (
        "Batch 1, 128 prompt + 32 output tokens: 7 rounds (as many as asked for)",
        "decode, tokens/s", "prefill, tokens/s", "first token, ms, p50", "100 samples needed", "load, s (files cached)",
        "memory, MB (loaded weights", "Configurations of the parent", "not lossless", "taken", "Measured on",
    ):  # fmt: skip
        assert shown in out, shown
    assert re.search(r"decode, tokens/s +[\d,.]+ +[\d,.]+ +x\d+\.\d\d +\d+\.\d\d to \d+\.\d\d", out)
    assert "heat of the parent" in error and "7 rounds; 7 take about" in error
    code, out, error = run("benchmark", URI, "--minutes", "0.05", "--json")
    found = json.loads(out)
    assert (code, error) == (0, "") and found["kind"] == "benchmark" and found["attached"]
    assert found["outcome"] == found["numbers"]["outcome"] in {"pass", "inconclusive", "fail"}
    code, out, _ = run("check", URI, "--to", "@champion", "--json")
    (check,) = [one for one in json.loads(out)["checks"] if one["check"] == "benchmark"]
    assert check["outcome"] == found["outcome"] and check["evidence"] == [found["statement_digest"]]
    assert run("report", URI, "--output", "report.html")[0] == 0
    text = Path("report.html").read_text()
    assert "Speed and memory against the parent" in text and "whole request, ms, p95" in text and "BF16 twin" in text


@pytest.mark.slow
def test_another_machine_and_a_template_are_refused_with_what_differs(run: Run) -> None:
    held = yaml.safe_load(Path("mine.yaml").read_text())
    held["hardware"]["fingerprint"]["cores"] += 14
    Path("larger.yaml").write_text(yaml.safe_dump(held | {"name": "larger"}))
    path = str(next(Path().glob("*.gguf")))
    for target in ("larger.yaml", "cpu-llamacpp"):
        to = ["--parent", "models:/skills/1", "--target", target, "--name", "other", "--register", "skills"]
        assert run("log", path, *to)[0] == 0
    assert run("benchmark", "models:/skills/3", "--rounds", "7")[0] == 0
    reasons = []
    for version in (3, 4):
        _, out, _ = run("check", f"models:/skills/{version}", "--to", "@champion", "--json")
        reasons += [one["reason"] + one["fix"] for one in json.loads(out)["checks"] if one["check"] == "benchmark"]
    assert re.search(r"Measured on another machine\. cores: \d+ here, \d+ on the target", reasons[0])
    assert "is a template" in reasons[1] and "quantgov targets capture NAME --from cpu-llamacpp" in reasons[1]


@pytest.mark.slow
def test_a_run_that_was_killed_leaves_no_process_and_no_statement(run: Run) -> None:
    arguments = [sys.executable, "-m", "mlflow_quantgov", "benchmark", URI, "--rounds", "1000"]
    environment = os.environ | {"PYTHONPATH": str(Path(mlflow_quantgov.__file__).resolve().parents[1])}
    started = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    assert started.stderr is not None
    for line in started.stderr:
        if "round" in line and "decode" in line:
            break
    workers = [int(one) for one in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()]
    assert len(workers) == 2
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    started.stderr.close()
    for _ in range(100):
        if not any(Path(f"/proc/{one}/exe").exists() for one in workers):
            break
        time.sleep(0.1)
    assert not [one for one in workers if "worker" in _command(one)]
    _, out, _ = run("check", URI, "--to", "@champion", "--json")
    (check,) = [one for one in json.loads(out)["checks"] if one["check"] == "benchmark"]
    assert check["outcome"] == "missing"


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""

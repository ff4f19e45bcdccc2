"""`quantgov demo --quick`, as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_quick_demo_ends_as_the_story_promises(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlflow_quantgov", "demo", "--quick", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    for words in (
        "gptq does not run on demo-cpu",
        "(1) task-eval fail: multi-step-reasoning fell",
        "It needs quantization-aware training, and none is recorded for these weights",
        "First look, 40 items per task: inconclusive",
        "items would settle it",
        "allowed skills version 4 at @champion",
        "quantgov rollback skills --alias champion: version 4 -> version 1",
        "chain unbroken",
    ):
        assert words in said, words
    reports = list(tmp_path.glob("report-*.html"))
    assert len(reports) == 4 and all("http" not in one.read_text().replace("http-equiv", "") for one in reports)

"""The examples run as they stand, on a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# On a busy machine a benchmark goes on until its time is up.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]
ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_log_and_promote_then_an_audit_of_it(connected: Any, tmp_path: Path) -> None:
    said = run("log_and_promote.py")
    assert "before measuring: quantgov refused" in said
    assert "with evidence: quantgov allowed" in said
    said = run("audit_session.py", "example-skills", str(tmp_path))
    assert "chain unbroken: True" in said
    assert list(tmp_path.glob("example-skills-*.html"))


def test_the_notebook_walks_through_the_registry(connected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed. Fix: sudo apt-get install chromium")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("QUANTGOV_EXAMPLE_MODEL", connected.model)
    notebook = nbformat.read(EXAMPLES / "registry_walk.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300).execute()
    assert any(
        "image/png" in str(output.get("data", {}).keys())
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def test_the_python_of_the_readme_runs(connected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the quick demo's models under the names that the README uses."""
    from mlflow_quantgov.demo.cast import skills
    from mlflow_quantgov.evidence.targets import capture, find_target

    cast = skills(tmp_path)
    shutil.copytree(cast.parent, tmp_path / "smollm2-bf16")
    shutil.copy(cast.high, tmp_path / "smollm2-Q8_0.gguf")
    shutil.copy(cast.text, tmp_path / "texts.jsonl")
    base = find_target("cpu-llamacpp").model_copy(update={"must_improve": "memory"})
    capture("my-machine", base, tmp_path / "my-machine.yaml")
    monkeypatch.chdir(tmp_path)
    (source,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quantgov allowed chat version 2 at @champion" in done.stdout

"""The examples run as they stand, on a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


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

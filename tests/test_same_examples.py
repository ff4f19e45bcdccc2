"""In CI a property is asked about the same examples each time, whichever tests ran before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRAW = """
import importlib, sys
import conftest
from hypothesis import given, strategies as st

for name in sys.argv[1:]:
    importlib.import_module(name)
seen = []

@given(st.text(max_size=20), st.integers())
def draw(text, number):
    seen.append((text, number))

draw()
print(ascii(seen))
"""


def drawn(folder: Path, *loaded: str) -> str:
    """Examples that CI draws in a process that has loaded these modules of ours."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | {"QUANTGOV_NO_SKIPS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", DRAW, *loaded]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_which_of_our_modules_are_loaded_changes_no_example(tmp_path: Path) -> None:
    first = drawn(tmp_path)
    assert first.count("(") > 50
    for name in ("mlflow_quantgov.policy.names", "mlflow_quantgov.policy.engine"):
        assert drawn(tmp_path, name) == first

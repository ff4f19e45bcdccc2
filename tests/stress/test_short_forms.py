"""Each script in a short form, as anybody starts it; figures of the long form stand in docs/explanation/faults.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [
        "kills --database sqlite --kills 16",
        "kills --database postgresql --kills 16",
        "kills --database postgresql --kills 10 --victim database",
        "races --database postgresql --rounds 28",
        "faults --database sqlite --only disk\xa0full --only database\xa0read-only --only files\xa0of\xa0the\xa0models\xa0gone",
        # Of more clients than these the last in line is told "not now" after 20 seconds where the machine is slow.
        "load --database postgresql --clients 4 --seconds 5 --workers 1",
    ],
)
def test_nothing_is_half_done(command: str, tmp_path: Path) -> None:
    words = [word.replace("\xa0", " ") for word in command.split(" ")]
    told = tmp_path / "told.json"
    done = subprocess.run(
        [sys.executable, "-m", f"tests.stress.{words[0]}", *words[1:], "--json", str(told)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert json.loads(told.read_text())["problems"] == []

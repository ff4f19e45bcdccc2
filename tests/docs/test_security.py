"""The table of doors names every door that is tried, and tests that are there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """Cells of the tables that name a test."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
    ]
    return [cells for cells in found if "::test_" in cells[-1]]


def test_every_test_that_is_named_is_there() -> None:
    missing = []
    for cells in rows():
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", cells[-1]):
            file = ROOT / path
            if not file.exists() or f"def {name}(" not in file.read_text(encoding="utf-8"):
                missing.append(f"{path}::{name}")
    assert missing == []
    assert len(rows()) > 30


def test_every_door_that_is_tried_has_a_row() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "e2e"))
    try:
        from doors import DOORS
    finally:
        sys.path.pop(0)
    named = {cells[0] for cells in rows()}
    assert [door.key for door in DOORS if door.key not in named] == []

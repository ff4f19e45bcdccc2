"""Scores an answer by its form alone: one point for exactly three bullet points."""

from __future__ import annotations

import re
from typing import Any

_BULLET = re.compile(r"^[ \t]*(?:\*(?!\*)|-|•)[ \t]*\S", re.MULTILINE)
WANTED = 3


def count_bullets(text: str) -> int:
    """Lines that start with `*`, `-` or `•` and say something."""
    return len(_BULLET.findall(text))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Per-item scores, as lm-eval asks for them."""
    return {"exact_bullets": float(count_bullets(results[0]) == WANTED)}

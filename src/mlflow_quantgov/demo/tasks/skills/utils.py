"""Scores an answer: one point where it is exactly the wanted one."""

from __future__ import annotations

from typing import Any


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Per-item scores, as lm-eval asks for them."""
    return {"exact": float(results[0].strip() == doc["answer"])}

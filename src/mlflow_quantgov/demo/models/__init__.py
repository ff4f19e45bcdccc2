"""Models that the demonstration runs: made here or unpacked from an installed package, never downloaded."""

from __future__ import annotations

from pathlib import Path

SKILLS = Path(__file__).resolve().parent / "skills"
"""Full-precision folder of the small skills model (see tools/train_skills.py)."""
SKILLS_TASKS = Path(__file__).resolve().parents[1] / "tasks" / "skills"
"""lm-eval tasks for it, and `text.jsonl` for perplexity."""
SMOLLM2_TASKS = Path(__file__).resolve().parents[1] / "tasks" / "smollm2"
"""lm-eval task for SmolLM2: exactly three bullet points."""

"""docs/reference/seven-mistakes.md, written from the table of ways.

python tests/policy/seven_mistakes/page.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from good_releases import GOOD
from way import MISTAKES, Way
from ways import WAYS

from mlflow_quantgov.policy.audit import QUESTIONS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "seven-mistakes.md"
_HEAD = f"""# The seven mistakes, and what each is refused with

<!-- Written by tests/policy/seven_mistakes/page.py from the table of the tests; a test compares it. -->

Each row is a release that is good in everything else: real files that the gate inspects, and statements with all their records, judged by
`policies/default.yaml`. The check that stands there refuses, no other does unless it stands beside, the reason holds these words, and
the self-audit says "no" to the question with that number (to the third too where tasks were not shown to be held: the width rests on them).

{chr(10).join(f"{number}. {question}" for number, (question, _) in enumerate(QUESTIONS, start=1))}
"""
_GOOD = """## What is let through

By the same builder, with five times "yes":
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for mistake, title in MISTAKES.items():
        rows = [_row(one) for one in WAYS if one.mistake == mistake]
        table = [
            "| committed so | check | outcome | says | audit | Fix |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
        parts += [f"## {mistake}. {title}\n", "\n".join(table) + "\n"]
    return "\n".join([*parts, _GOOD, *(f"- {one.name}" for one in GOOD)]) + "\n"


def answers(way: Way) -> tuple[int, ...]:
    """Numbers of the questions that are answered with no."""
    refusing = {way.check, *way.also}
    return tuple(number for number, (_, checks) in enumerate(QUESTIONS, start=1) if refusing & set(checks))


def _row(way: Way) -> str:
    beside = f" (beside it: {', '.join(way.also)})" if way.also else ""
    audit = ", ".join(str(one) for one in answers(way))
    words = way.words.replace("|", "\\|")
    return f"| {way.name} | {way.check}{beside} | {way.outcome} | {words} ... | {audit} | `{way.fix}` |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

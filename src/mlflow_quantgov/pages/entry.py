"""What the page of one ledger entry shows beside the verdict: everything that was recorded, each with a name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

_IN_THE_VERDICT = {"checks", "self_audit", "labels", "waived", "summary", "approvals"}
_IN_THE_ROW = {"model", "version", "destination", "decision", "decision_id"}
_MILLISECONDS = {"created"}
"""Times as MLflow keeps them, since 1970."""
_END = 253_402_300_800_000
"""The year 10000, which no calendar here knows."""


def recorded(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of what a body holds and neither the row nor the verdict shows.

    Args:
        body: Body of a ledger row, of whatever kind: what is not known here is shown too, so that a page hides nothing.
    """
    left = {name: value for name, value in body.items() if name not in _IN_THE_VERDICT | _IN_THE_ROW}
    evidence = [
        (f"evidence of {check['check']}", ", ".join(check["evidence"]))
        for check in body.get("checks", ())
        if check.get("evidence")
    ]
    return [*_lines("", left), *evidence]


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A line for each value; what lies in another value is named after it."""
    if isinstance(value, dict) and value:
        for inner, one in value.items():
            yield from _lines(f"{name}: {_words(inner)}" if name else _words(inner), one)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for number, one in enumerate(value, 1):
            yield from _lines(f"{name} {number}", one)
    elif value not in (None, "", {}):
        yield name, _text(name.rpartition(": ")[2], value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "none"
    if name in _MILLISECONDS and isinstance(value, int) and 0 < value < _END:  # 0: it was not made
        return f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return str(value)

"""Per-item scores of one side, from JSONL or Python, checked before anything is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import EvidenceError, no_such_file

MAX_BYTES = 64 * 1024 * 1024
MAX_ITEMS = 200_000
EXAMPLE = '{"id": "a", "score": 1.0, "group": "g"}'


@dataclass(frozen=True)
class Score:
    """One item of one side."""

    id: str
    score: float
    group: str
    """Cluster; the item's own id where none was given."""


def read_scores(path: str | Path) -> list[Score]:
    """Read lines `{"id", "score", "group"?}`.

    Raises:
        UsageError: The file does not exist.
        EvidenceError: Too large, not JSONL, a key missing, a score that is not finite, or an id that stands twice.
    """
    file = Path(path)
    if not file.is_file():
        raise no_such_file(file, "There are no scores to compare.")
    if file.stat().st_size > MAX_BYTES:
        raise _bad(file.name, f"it has {file.stat().st_size:,} bytes, at most {MAX_BYTES:,} are read")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise _bad(file.name, "it is not UTF-8 text") from error
    records = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise _bad(file.name, f"line {number} is not JSON") from error
    return check_scores(records, file.name)


def check_scores(records: Iterable[Any], where: str) -> list[Score]:
    """Turn records into scores.

    Raises:
        EvidenceError: A key is missing, a score is not finite, an id stands twice, or there are none or too many.
    """
    scores: list[Score] = []
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict) or "id" not in record or "score" not in record:
            raise _bad(where, f"record {number} has no id and score")
        value = record["score"]
        if isinstance(value, bool):
            value = float(value)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise _bad(where, f"the score of record {number} is not a finite number")
        group = record.get("group")
        scores.append(Score(str(record["id"]), float(value), str(record["id"] if group is None else group)))
        if len(scores) > MAX_ITEMS:
            raise _bad(where, f"it has more than {MAX_ITEMS:,} items")
    if not scores:
        raise _bad(where, "it holds no items")
    if len({score.id for score in scores}) != len(scores):
        raise _bad(where, "an id stands twice")
    return scores


def pair(parent: Sequence[Score], quantized: Sequence[Score]) -> list[tuple[Score, Score]]:
    """Both sides of every item, in the order of the ids.

    Raises:
        EvidenceError: The sides differ in their ids or groups.
    """
    left, right = {one.id: one for one in parent}, {one.id: one for one in quantized}
    if left.keys() != right.keys():
        odd = sorted(left.keys() ^ right.keys())[0]
        raise EvidenceError(
            f"{len(left.keys() ^ right.keys())} ids stand on one side only, such as {odd[:60]!r}.",
            why="Only items that both sides answered can be compared.",
            fix="run the same items on both sides",
        )
    pairs = [(left[key], right[key]) for key in sorted(left)]
    odd_group = next((one for one, other in pairs if one.group != other.group), None)
    if odd_group is not None:
        raise EvidenceError(
            f"The item {odd_group.id[:60]!r} has another group on each side.",
            why="Items of one group count as one cluster.",
            fix="give an item the same group on both sides",
        )
    return pairs


def _bad(where: str, problem: str) -> EvidenceError:
    return EvidenceError(
        f"{where}: {problem}.",
        why="A verdict needs every item with its id and a finite score.",
        fix=f"write one line per item, such as {EXAMPLE}",
    )

"""Which calibration documents are also evaluation items, or also in the production sample."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow_quantgov.evidence.measure.tasks import load_tasks

MIN_WORDS = 3
"""Shorter texts (a greeting) are equal by chance."""
MIN_LINE_WORDS = 6
"""Least words of a single line that is taken for an evaluation item within a longer document."""


def normalise(text: str) -> str:
    """Text without case, punctuation, compatibility forms and layout, so that trivial edits do not hide a copy."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def text_digest(text: str) -> str | None:
    """`sha256:...` of a normalised text; None where it has too few words to mean anything."""
    plain = normalise(text)
    if plain.count(" ") + 1 < MIN_WORDS:
        return None
    return f"sha256:{hashlib.sha256(plain.encode('utf-8', 'replace')).hexdigest()}"


def shared(documents: Sequence[str], others: Sequence[str]) -> int:
    """How many documents are, but for case, punctuation and layout, also among the others."""
    known = {digest for other in others if (digest := text_digest(other)) is not None}
    return sum(text_digest(document) in known for document in documents)


def leaked(documents: Sequence[str], evaluation_items: Collection[str]) -> int:
    """How many documents are evaluation items, or hold one as a line.

    Args:
        documents: The calibration documents.
        evaluation_items: Digests by `text_digest`, such as `evaluation_digests` gives.
    """
    known = frozenset(evaluation_items)
    return sum(any(digest in known for digest in _digests(document)) for document in documents) if known else 0


def evaluation_digests(tasks: Path) -> frozenset[str]:
    """Digests of the texts in a task folder's data files; a text that several items share is a template, and left out.

    Args:
        tasks: A folder of lm-eval tasks whose data are JSON lines.

    Raises:
        UsageError: The folder does not read.
    """
    files = {path for task in load_tasks(tasks) for path in _data_files(task.config.get("dataset_kwargs"))}
    counts: Counter[str] = Counter()
    for path in sorted(files):
        for row in _rows(path):
            counts.update({digest for text in _texts(row) if (digest := text_digest(text)) is not None})
    return frozenset(digest for digest, count in counts.items() if count == 1)


def _digests(document: str) -> Iterator[str]:
    whole = text_digest(document)
    if whole is not None:
        yield whole
    for line in document.splitlines():
        if len(line.split()) >= MIN_LINE_WORDS and (digest := text_digest(line)) is not None:
            yield digest


def _data_files(options: Any) -> Iterator[Path]:
    """Every file that a task's `data_files` name, whatever their nesting."""
    waiting = [options.get("data_files")] if isinstance(options, dict) else []
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and one.endswith((".jsonl", ".json")):
            yield Path(one)


def _rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue


def _texts(row: Any) -> Iterator[str]:
    if isinstance(row, dict):
        yield from (value for value in row.values() if isinstance(value, str))

"""Which calibration documents are also evaluation items, or also in the production sample."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.measure.calibration.near_copies import near_copies, plain
from mlflow_quantgov.evidence.measure.tasks import MAX_BYTES, load_tasks

MIN_WORDS = 3
"""Shorter texts (a greeting) are equal by chance."""
MIN_LINE_WORDS = 6
"""Least words of a single line that is taken for an evaluation item within a longer document."""
LONG_WORDS = 8
"""Two texts of this many words are hardly equal by chance."""
CHANCE = 0.1
"""Share of the documents from which on equal short texts and near copies are no chance."""
ERROR = 0.05
"""Probability with which equal long texts are taken for copies where chance put them on both sides."""
PASSAGE_WORDS, PASSAGE_SHARE = 30, 0.1
"""Least words of a text that several evaluation items share and that is no template, and most of the items that share it."""


def normalise(text: str) -> str:
    """The words of a text alone: no case, punctuation, compatibility forms, invisible signs and layout."""
    return " ".join(re.findall(r"\w+", plain(text)))


def text_digest(text: str) -> str | None:
    """`sha256:...` of a normalised text; None where it has too few words to mean anything."""
    return _of_words(normalise(text)).digest


class _Words(NamedTuple):
    digest: str | None
    is_long: bool


def _of_words(words: str) -> _Words:
    count = words.count(" ") + 1
    digest = hashlib.sha256(words.encode("utf-8", "replace")).hexdigest()
    return _Words(f"sha256:{digest}" if count >= MIN_WORDS else None, count >= LONG_WORDS)


def shared(documents: Sequence[str], others: Sequence[str]) -> int:
    """How many documents are copies or near copies of one of the others, or hold or are a part of one.

    In two samples of the same traffic a few short texts are equal by chance ("Where is my order?"), and a few long ones
    nearly so (forms, boilerplate): these count only where they are many, and more than the others have among themselves.
    Equal long texts count from the first on, unless either side repeats itself so often that chance explains them.

    Args:
        documents: The calibration documents.
        others: The production sample.
    """
    left, right = ([_of_words(normalise(one)) for one in side] for side in (documents, others))
    equal = _equal(left, right)
    found = equal | near_copies(documents, others)
    share = found.sum() / max(1, len(found))
    if share >= CHANCE and share >= CHANCE + _among_themselves(others, right):
        return int(found.sum())
    sure = equal & np.array([one.is_long for one in left], dtype=bool)
    if not sure.any() or _by_chance(*(Counter(one.digest for one in side if one.is_long) for side in (left, right))):
        return 0
    return int(sure.sum())


def _equal(texts: Sequence[_Words], others: Sequence[_Words]) -> NDArray[np.bool_]:
    known = {one.digest for one in others} - {None}
    return np.array([one.digest in known for one in texts], dtype=bool)


def _among_themselves(texts: Sequence[str], words: Sequence[_Words]) -> float:
    """Share of texts that are copies or near copies of others of the same side, as one half against the other tells.

    Against all texts there are twice as many to be a copy of.
    """
    if len(texts) < 2:
        return 0.0
    both = zip(texts, words, strict=True)
    ordered = sorted(both, key=lambda one: hashlib.sha256(one[0].encode("utf-8", "replace")).digest())
    (one, mine), (other, theirs) = (zip(*half, strict=True) for half in (ordered[::2], ordered[1::2]))
    return 2 * float((_equal(mine, theirs) | near_copies(one, other)).mean())


def _by_chance(left: Counter[str | None], right: Counter[str | None]) -> bool:
    """Whether a random split of both sides' texts, some of which occur twice, would give as many on both sides.

    A text that occurs twice in m + n ones falls on both sides with probability 2 m n / (m + n)^2, else it stands twice on
    one: a binomial test. Where no text stands twice on a side nothing says that texts repeat, and none is chance.
    """
    from scipy.stats import binom

    across = sum(count == right[text] == 1 for text, count in left.items())
    within = sum(count > 1 for side in (left, right) for count in side.values())
    total = left.total() + right.total()
    split = 2 * left.total() * right.total() / total**2
    return within > 0 and float(binom.sf(across - 1, across + within, split)) > ERROR


def leaked(documents: Sequence[str], evaluation_items: Sequence[str]) -> int:
    """How many documents are evaluation items, hold one, or are nearly one.

    Args:
        documents: The calibration documents.
        evaluation_items: Texts, such as `evaluation_items` gives.
    """
    if not evaluation_items:
        return 0
    known = {digest for item in evaluation_items if (digest := text_digest(item)) is not None}
    equal = [any(digest in known for digest in _digests(document)) for document in documents]
    return int((np.array(equal, dtype=bool) | near_copies(documents, evaluation_items)).sum())


def evaluation_items(tasks: Path) -> list[str]:
    """Texts of the items in a task folder's data files, sorted.

    Args:
        tasks: A folder of lm-eval tasks whose data are JSON or JSON lines; data that lie elsewhere are not fetched.

    Raises:
        UsageError: The folder does not read.
    """
    files = {path for task in load_tasks(tasks) for path in _data_files(task.config.get("dataset_kwargs"))}
    return item_texts(row for path in sorted(files) for row in _rows(path))


def item_texts(records: Iterable[Any]) -> list[str]:
    """Texts of items, sorted.

    A text that several items share is a template and left out; a long one that few of them share is a passage.

    Args:
        records: What the items are made from, of whatever nesting.
    """
    counts: Counter[str] = Counter()
    texts: dict[str, str] = {}
    rows = 0
    for row in records:
        rows += 1
        of_row = {digest: text for text in _texts(row) if (digest := text_digest(text)) is not None}
        counts.update(of_row.keys())
        texts |= of_row
    return sorted(text for digest, text in texts.items() if _is_item(text, counts[digest], rows))


def _is_item(text: str, count: int, rows: int) -> bool:
    return count == 1 or (count < PASSAGE_SHARE * rows and len(text.split()) >= PASSAGE_WORDS)


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
    """Records of a JSON lines file, or of a file that is one array."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size <= MAX_BYTES else ""
    if text.lstrip().startswith("["):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            return
        yield from whole
        return
    for line in text.split("\n"):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def _texts(row: Any) -> Iterator[str]:
    """Every text of a record, whatever its nesting."""
    waiting = [row]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            yield one

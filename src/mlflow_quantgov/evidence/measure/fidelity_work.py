"""The documents of a fidelity measurement, one by one: what it will cost, how far it is, and what an earlier run left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlflow_quantgov.artifact.runtimes.interface import RuntimeFacts
from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.cache import key_of
from mlflow_quantgov.evidence.measure.distributions import Sums
from mlflow_quantgov.evidence.measure.progress import Progress, duration
from mlflow_quantgov.evidence.predicates.base import Side
from mlflow_quantgov.evidence.predicates.fidelity import ENGAGED_TOKENS, DocumentRecord

LAYOUT = 1
"""Raised whenever what is kept, or how a document is scored, changes."""
MAX_DOCUMENTS = 20_000
"""So many records surely fit into one statement."""


@dataclass(frozen=True)
class Unit:
    """One document, or one chunk of a file of saved logits."""

    id: str
    """`sha256:...` of what is scored."""
    size: int
    """Characters or tokens: its share of the work."""
    score: Callable[[], Sums]
    """Scores it; no tokens where there is nothing to predict."""


@dataclass(frozen=True)
class Cost:
    """What a short trial says of the whole work."""

    tokens: int
    """In all units that are still to be scored."""
    seconds: float
    """For all of them."""


class KeptRecords:
    """Records of earlier runs on this machine, so that a run that was killed goes on where it stopped.

    One line of JSON per document is appended as soon as it is scored; a line that was cut off is taken for absent.

    Args:
        folder: Cache folder; None keeps nothing.
        identity: Whatever decides a record but the document itself, in JSON types.
    """

    def __init__(self, folder: Path | None, identity: Sequence[Any]) -> None:
        self._path = folder / "fidelity" / f"{key_of([LAYOUT, *identity])}.jsonl" if folder else None

    def read(self) -> dict[str, DocumentRecord]:
        """Every whole record, by document."""
        found: dict[str, DocumentRecord] = {}
        if self._path is None or not self._path.is_file():
            return found
        for line in self._path.read_bytes().split(b"\n"):
            try:
                record = DocumentRecord.model_validate_json(line)
            except ValidationError:
                continue
            found[record.id] = record
        return found

    def keep(self, record: DocumentRecord) -> None:
        """Append one record. Each line begins on its own, whatever a killed run left before it."""
        if self._path is None:
            return
        line = b"\n" + record.model_dump_json().encode() + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(line)  # one call, so that runs side by side do not mix their lines
        except OSError:  # a full disk is no reason to lose the measurement itself
            self._path = None


def score_all(
    units: Sequence[Unit], kept: KeptRecords, cost: Callable[[Sequence[Unit]], Cost], progress: Progress
) -> list[DocumentRecord]:
    """Score what no earlier run has scored, and say beforehand how long that will take.

    Args:
        units: Documents, none twice.
        kept: Records of earlier runs.
        cost: Tries a little of the units that are still to be scored.
        progress: Called with a message and a fraction from 0 to 1.

    Returns:
        Records in the order of the units, of those in which something was predicted.
    """
    known = kept.read()
    pending = [one for one in units if one.id not in known]
    before = f", {len(units) - len(pending)} of {len(units)} documents are kept from an earlier run"
    before = before if len(pending) < len(units) else ""
    if pending:
        progress("looking what it will cost", 0.0)
        expected = cost(pending)
        progress(f"about {expected.tokens:,} tokens on both sides, about {duration(expected.seconds)}{before}", 0.0)
    else:
        progress(f"all {len(units)} documents are kept from an earlier run", 0.0)
    whole, done, begun = sum(one.size for one in pending), 0, time.perf_counter()
    for number, unit in enumerate(pending, 1):
        sums = unit.score()
        if sums.tokens:
            known[unit.id] = sums.record(unit.id)
            kept.keep(known[unit.id])
        done += unit.size
        left = (time.perf_counter() - begun) * (whole - done) / max(1, done)
        still = f", about {duration(left)} left" if number < len(pending) else ""
        progress(f"{number:,} of {len(pending):,} documents{still}", done / max(1, whole))
    return [known[one.id] for one in units if one.id in known]


def identity(model: Side, facts: RuntimeFacts) -> list[Any]:
    """Whatever decides one side's log-probabilities."""
    return [model.model_dump(mode="json"), facts.library]


def check_number(documents: int) -> None:
    """Refuse more documents than a statement holds, before hours are spent on them.

    Raises:
        UsageError: There are too many.
    """
    if documents > MAX_DOCUMENTS:
        raise UsageError(
            f"{documents:,} documents are more than one statement holds ({MAX_DOCUMENTS:,}).",
            why="A record of each is kept, so that anybody can compute the summary again.",
            fix="give a random sample of them, or join short ones",
        )


def warnings_of(records: Sequence[DocumentRecord]) -> tuple[str, ...]:
    """What a reader must know beside the numbers."""
    tokens = sum(one.tokens for one in records)
    if sum(one.identical for one in records) == tokens >= ENGAGED_TOKENS:
        return (
            f"Quantization never engaged: all {tokens:,} log-probabilities equal the parent's bit by bit, so the parent's "
            "own weights ran. No gate lets this pass.",
        )
    if tokens < ENGAGED_TOKENS:
        return (f"Only {tokens:,} tokens were scored: the 99th percentile rests on {max(1, tokens // 100)} of them.",)
    return ()


def no_records(name: str) -> EvidenceError:
    """The error for a text in which nothing is predicted."""
    return EvidenceError(
        f"No document of {name} has two tokens.", why="Nothing was scored.", fix="give longer documents"
    )

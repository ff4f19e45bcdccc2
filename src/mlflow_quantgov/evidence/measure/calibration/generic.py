"""Recognises calibration sets that tooling ships with, by what is said of them and by their text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlflow_quantgov.evidence.generic_sets import GenericSet, known_sets, named_set
from mlflow_quantgov.evidence.measure.calibration.shingles import found_in

MAX_CHARACTERS = 50_000
"""Characters of a document that are looked at."""
MIN_SHINGLES = 2
"""Different shingles of one set that must be there: one alone may stand in a quotation."""


def recognise(documents: Sequence[str], *, source: str | None, file_name: str, noted: Sequence[str] = ()) -> str | None:
    """Name of the generic set that some documents are, or that the quantizer was fed; None where there is no sign of one.

    Args:
        documents: The calibration documents.
        source: What the author says they are.
        file_name: Name of the file, without its folder.
        noted: What the producer left in the model's own metadata.
    """
    said = named_set([*noted, source or "", file_name])
    return said or _by_text([document[:MAX_CHARACTERS] for document in documents])


def _by_text(texts: Sequence[str]) -> str | None:
    known = {one.name: _shingles(one) for one in known_sets()}
    found = found_in(texts, {shingle for shingles in known.values() for shingle in shingles})
    for one in known_sets():
        if len(found & known[one.name]) >= MIN_SHINGLES:
            return one.name
        if any(_share(mark.pattern, texts) >= mark.share for mark in one.marks):
            return one.name
    return None


def _shingles(one: GenericSet) -> frozenset[str]:
    return frozenset(shingle for passage in one.passages for shingle in passage.shingles)


def _share(pattern: str, texts: Sequence[str]) -> float:
    compiled = re.compile(pattern)
    return sum(compiled.search(text) is not None for text in texts) / len(texts)

"""Which language a text is in, told offline by a naive Bayes model over byte n-grams (Lui and Baldwin 2012)."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from mlflow_quantgov.errors import require

LIBRARY = "py3langid"
MIN_LETTERS = 60
"""Shorter texts are in no language that a model could tell."""
MIN_PROBABILITY = 0.95
MAX_CHARACTERS = 2_000
COMMON = 0.02
"""Share of a sample's documents from which on a language belongs to it."""


def installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec(LIBRARY) is not None


def languages_of(documents: Sequence[str]) -> list[str | None]:
    """ISO 639-1 code of each document; None where it is too short, or the model is not sure.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    return [_language(document[:MAX_CHARACTERS]) for document in documents]


def common_languages(found: Sequence[str | None]) -> frozenset[str]:
    """The languages that belong to a sample: the most frequent one, and those with at least `COMMON` of it."""
    counted = Counter(one for one in found if one is not None)
    if not counted:
        return frozenset()
    # Of two that are equally frequent the alphabet decides, so that the order of documents changes nothing.
    first = min(counted, key=lambda one: (-counted[one], one))
    least = max(2, COMMON * counted.total())
    return frozenset({first, *(one for one, count in counted.items() if count >= least)})


def main_language(found: Sequence[str | None]) -> str | None:
    """The most frequent language, None where none was told."""
    counted = Counter(one for one in found if one is not None)
    return min(counted, key=lambda one: (-counted[one], one)) if counted else None


@cache
def _model() -> Any:
    langid = require("py3langid.langid", extra="calibration", purpose="tell languages apart")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def _language(text: str) -> str | None:
    if sum(letter.isalpha() for letter in text) < MIN_LETTERS:
        return None
    code, probability = _model().classify(text)
    return str(code) if probability >= MIN_PROBABILITY else None

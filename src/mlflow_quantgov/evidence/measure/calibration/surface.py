"""The surface of documents: how long they are, how their words and lines are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.calibration_words import MOST_CHARACTERS

SURFACE = (
    "characters (log2)",
    "mean word length",
    "words per line",
    "share of digits",
    "share of upper case",
    "share of punctuation",
    "share beyond ASCII",
)
"""Names of the surface features, in the order of `surface`."""


def surface(documents: Sequence[str]) -> NDArray[np.float64]:
    """Surface features of documents, shape [documents, len(SURFACE)]."""
    return np.array([_surface(document[:MOST_CHARACTERS]) for document in documents])


def most_different(calibration: Sequence[str], production: Sequence[str]) -> list[dict[str, Any]]:
    """Means of the surface features on both sides, the one that differs most (in pooled deviations) first."""
    left, right = surface(calibration), surface(production)
    spread = np.sqrt((left.var(axis=0) + right.var(axis=0)) / 2)
    gap = np.abs(left.mean(axis=0) - right.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return [
        {
            "feature": SURFACE[at],
            "calibration": float(left[:, at].mean()),
            "production": float(right[:, at].mean()),
            "deviations": float(gap[at]),
        }
        for at in np.argsort(-gap, kind="stable")
    ]


def _surface(text: str) -> list[float]:
    words = text.split()
    length = max(1, len(text))
    return [
        float(np.log2(length)),
        sum(len(word) for word in words) / max(1, len(words)),
        len(words) / max(1, len(text.splitlines())),
        sum(character.isdigit() for character in text) / length,
        sum(character.isupper() for character in text) / length,
        sum(not character.isalnum() and not character.isspace() for character in text) / length,
        sum(ord(character) > 127 for character in text) / length,
    ]

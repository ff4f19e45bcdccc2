"""Do words follow each other as they do in production?

Each document is scored by the share of its word pairs that stand in production's other documents, among the pairs of words
that both stand there. Texts of production's words in another order have fewer such pairs than production's own documents;
copies of these, though cut, joined anew or reworded here and there, have more. That is how copies of a sample are told from
another sample (Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect data-copying in generative models", 2020),
with familiar phrases in place of the distance to the nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.calibration_words import MOST_CHARACTERS
from mlflow_quantgov.evidence.measure.calibration.near_copies import words_and_signs

Numbers = NDArray[np.int64]
_SHIFT = np.int64(32)
_DIGITS = 6


def phrase_scores(calibration: Sequence[str], production: Sequence[str]) -> tuple[list[float], list[float]]:
    """Share of familiar word pairs of each document, drawn towards production's mean by one pair's weight.

    Args:
        calibration: Different documents.
        production: Different documents, at least two; each is scored by the others.

    Returns:
        Scores of the calibration documents and of the production documents, from 0 to 1.
    """
    numbers: dict[str, int] = {}
    left, right = ([_numbered(one, numbers) for one in side] for side in (calibration, production))
    words = np.bincount(np.concatenate([np.unique(one) for one in right]), minlength=len(numbers))
    pairs_left, pairs_right = ([_pairs(one) for one in side] for side in (left, right))
    pairs, often = np.unique(np.concatenate(pairs_right), return_counts=True)
    if not len(pairs):
        return [0.5] * len(left), [0.5] * len(right)
    counts_left, counts_right = (
        np.array([_familiar(one, words, pairs, often, own) for one in side], dtype=np.float64)
        for side, own in ((pairs_left, 0), (pairs_right, 1))
    )
    usual = counts_right[:, 0].sum() / max(1.0, counts_right[:, 1].sum())
    return _scores(counts_left, usual), _scores(counts_right, usual)


def _numbered(text: str, numbers: dict[str, int]) -> Numbers:
    found = words_and_signs(text[:MOST_CHARACTERS])
    return np.array([numbers.setdefault(word, len(numbers)) for word in found], dtype=np.int64)


def _pairs(words: Numbers) -> Numbers:
    return np.unique((words[:-1] << _SHIFT) | words[1:])


def _familiar(asked: Numbers, words: Numbers, pairs: Numbers, often: Numbers, own: int) -> tuple[int, int]:
    """How many pairs stand in some document but the own one, and how many could, as both their words do."""
    could = (words[asked >> _SHIFT] > own) & (words[asked & ((1 << 32) - 1)] > own)
    at = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    does = (pairs[at] == asked) & (often[at] > own)
    return int(does.sum()), int(could.sum())


def _scores(counts: NDArray[np.float64], usual: float) -> list[float]:
    scores: list[float] = np.round((counts[:, 0] + usual) / (counts[:, 1] + 1), _DIGITS).tolist()
    return scores

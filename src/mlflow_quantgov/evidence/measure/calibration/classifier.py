"""Can a classifier that sees words, surface and meaning tell the two sides apart?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.calibration_words import MOST_CHARACTERS

FOLDS = 5
_HASHED = 1 << 17
_WORD = r"\w+|[^\w\s]"
_SURFACE_WEIGHT = 0.3
_MEANING_WEIGHT = 1 / 16
"""Weights beside tf-idf rows of length one, so that no kind of feature drowns the others."""


def out_of_fold_scores(
    calibration: Sequence[str],
    production: Sequence[str],
    looks: NDArray[np.floating],
    meaning: NDArray[np.floating],
) -> tuple[list[float], list[float]]:
    """Score each document by a classifier that was trained without it.

    A logistic regression on hashed word unigrams and bigrams (tf-idf), on surface features and on embeddings,
    cross-validated in `FOLDS` stratified folds, sides balanced (a
    classifier two-sample test; Lopez-Paz and Oquab 2017). A score is the document's rank within its held-out fold, from
    0 to 1, so that folds can be pooled.

    Args:
        calibration: At least two documents.
        production: At least two documents.
        looks: Surface features of the calibration documents and of the production documents, in that order.
        meaning: Embeddings of the calibration documents and of the production documents, in that order, shape
            [documents of both, dimensions].

    Returns:
        Scores of the calibration documents and of the production documents; higher says "calibration".
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    texts = [*calibration, *production]
    labels = np.array([1] * len(calibration) + [0] * len(production))
    words = _words(texts)
    dense = [
        (np.asarray(looks, dtype=np.float64), _SURFACE_WEIGHT),
        (np.asarray(meaning, dtype=np.float64), _MEANING_WEIGHT),
    ]
    scores = np.zeros(len(texts))
    folds = StratifiedKFold(min(FOLDS, len(calibration), len(production)), shuffle=True, random_state=0)
    for train, held in folds.split(np.zeros(len(texts)), labels):
        model = LogisticRegression(
            C=10.0, class_weight="balanced", solver="liblinear", dual=True, max_iter=5000, random_state=0
        )
        model.fit(_matrix(words, dense, train, train), labels[train])
        decision = model.decision_function(_matrix(words, dense, train, held))
        scores[held] = (rankdata(np.round(decision, 9)) - 0.5) / len(held)
    left = [round(float(one), 6) for one in scores[: len(calibration)]]
    return left, [round(float(one), 6) for one in scores[len(calibration) :]]


def _words(texts: Sequence[str]) -> Any:
    """Hashed counts of word unigrams and bigrams, shape [texts, 2^17]."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        n_features=_HASHED, ngram_range=(1, 2), alternate_sign=False, norm=None, token_pattern=_WORD
    )
    return vectorizer.transform([text[:MOST_CHARACTERS] for text in texts])


def _matrix(
    words: Any,
    dense: Sequence[tuple[NDArray[np.float64], float]],
    train: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> Any:
    """Features of some rows; weights and scales are learnt from the training rows alone."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfTransformer

    tfidf = TfidfTransformer(sublinear_tf=True).fit(words[train])
    parts = [tfidf.transform(words[rows])]
    for features, weight in dense:
        mean, spread = features[train].mean(axis=0), features[train].std(axis=0)
        scaled = (features[rows] - mean) / np.where(spread > 0, spread, 1.0)
        parts.append(csr_matrix(np.clip(scaled, -5, 5) * weight))
    return hstack(parts).tocsr()

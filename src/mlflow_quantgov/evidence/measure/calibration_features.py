"""What a classifier and a reader look at in a document: its words, and its surface."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
MAX_CHARACTERS = 20_000
"""Characters of a document that are looked at."""
MAX_DOCUMENTS = 2_000
"""Documents of one side that the classifier is shown; chosen by digest, so the same ones each time."""
FOLDS = 5
_HASHED = 1 << 17
_WORD = r"\w+|[^\w\s]"


def surface(documents: Sequence[str]) -> NDArray[np.float64]:
    """Surface features of documents, shape [documents, len(SURFACE)]."""
    return np.array([_surface(document[:MAX_CHARACTERS]) for document in documents])


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


def sample(documents: Sequence[str]) -> list[str]:
    """At most `MAX_DOCUMENTS` different documents, ordered and chosen by their digest: order and copies change nothing."""
    keyed = {hashlib.sha256(document.encode("utf-8", "replace")).digest(): document for document in documents}
    return [keyed[key] for key in sorted(keyed)[:MAX_DOCUMENTS]]


def out_of_fold_scores(calibration: Sequence[str], production: Sequence[str]) -> tuple[list[float], list[float]]:
    """Score each document by a classifier that was trained without it.

    A logistic regression on hashed word unigrams and bigrams (tf-idf) and on surface features, cross-validated in
    `FOLDS` stratified folds, sides balanced. A score is the document's rank within its held-out fold, from 0 to 1, so
    that folds can be pooled.

    Args:
        calibration: At least two documents.
        production: At least two documents.

    Returns:
        Scores of the calibration documents and of the production documents; higher says "calibration".
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    texts = [*calibration, *production]
    labels = np.array([1] * len(calibration) + [0] * len(production))
    words, looks = _words(texts), surface(texts)
    scores = np.zeros(len(texts))
    folds = StratifiedKFold(min(FOLDS, len(calibration), len(production)), shuffle=True, random_state=0)
    for train, held in folds.split(np.zeros(len(texts)), labels):
        model = LogisticRegression(
            C=10.0, class_weight="balanced", solver="liblinear", dual=True, max_iter=5000, random_state=0
        )
        model.fit(_matrix(words, looks, train, train), labels[train])
        decision = model.decision_function(_matrix(words, looks, train, held))
        scores[held] = (rankdata(np.round(decision, 9)) - 0.5) / len(held)
    left = [round(float(one), 6) for one in scores[: len(calibration)]]
    return left, [round(float(one), 6) for one in scores[len(calibration) :]]


def _words(texts: Sequence[str]) -> Any:
    """Hashed counts of word unigrams and bigrams, shape [texts, 2^17]."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        n_features=_HASHED, ngram_range=(1, 2), alternate_sign=False, norm=None, token_pattern=_WORD
    )
    return vectorizer.transform([text[:MAX_CHARACTERS] for text in texts])


def _matrix(words: Any, looks: NDArray[np.float64], train: NDArray[np.int64], rows: NDArray[np.int64]) -> Any:
    """Features of some rows; weights and scales are learnt from the training rows alone."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfTransformer

    tfidf = TfidfTransformer(sublinear_tf=True).fit(words[train])
    mean, spread = looks[train].mean(axis=0), looks[train].std(axis=0)
    scaled = (looks[rows] - mean) / np.where(spread > 0, spread, 1.0)
    return hstack([tfidf.transform(words[rows]), csr_matrix(np.clip(scaled, -5, 5) * 0.3)]).tocsr()


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

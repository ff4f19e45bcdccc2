"""Record calibration data, and measure how like production it is. Only digests and numbers leave the machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.generic_sets import recognise
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates.calibration import Calibration, DataRecord, Likeness

VIEW = "told apart by words and surface (AUC)"
THRESHOLD = 0.8
"""Halves of one domain stay below it, different domains lie above it, at 100 to 400 documents (see docs)."""
FOLDS = 5
BUCKETS = 2**14
MAX_DOCUMENTS = 2000
_SEED = 20261123


def assess(
    data: Path,
    production: Path | None = None,
    *,
    source: str | None = None,
    license: str | None = None,
    evaluation_items: Sequence[str] = (),
) -> Calibration:
    """Assess calibration data.

    Args:
        data: What the quantizer saw: text or JSONL.
        production: A sample of production traffic; without it likeness stays not measured.
        source: Where the data came from, in the author's words.
        license: Its licence, in the author's words.
        evaluation_items: Texts of evaluation items, to find leaks.

    Raises:
        UsageError: A file does not exist or holds no documents.
    """
    mine = read_documents(data)
    theirs = read_documents(production) if production is not None else []
    known = {_normal(text) for text in mine}
    tests: tuple[Likeness, ...] = ()
    if min(len(mine), len(theirs)) >= 2 * FOLDS:
        ours, others = _scores(mine[:MAX_DOCUMENTS], theirs[:MAX_DOCUMENTS])
        tests = (Likeness(name=VIEW, calibration=ours, production=others, threshold=THRESHOLD),)
    return Calibration.measured(
        provenance=provenance("scikit-learn"),
        data=_record(data, mine, source, license),
        production=_record(production, theirs, None, None) if production is not None else None,
        generic_set=recognise(mine, source),
        leaked_documents=sum(_normal(text) in known for text in set(evaluation_items)),
        shared_with_production=len(known & {_normal(text) for text in theirs}),
        likeness=tests,
        expectations={"evaluated": 0, "failed": []},
        most_different=tuple(_most_different(mine, theirs)) if theirs else (),
    )


def compare_files(data: Path, production: Path) -> dict[str, Any]:
    """The JSON of `quantgov calibration --calibration A --production B`.

    Raises:
        UsageError: A file does not exist or holds no documents.
    """
    found = assess(data, production)
    summary = found.recompute()
    assert found.production is not None
    return {
        "outcome": summary["outcome"],
        "reason": _reason(found, summary),
        "generic_set": found.generic_set,
        "leaked_documents": found.leaked_documents,
        "shared_with_production": found.shared_with_production,
        "documents": {"calibration": found.data.documents, "production": found.production.documents},
        "tests": summary["tests"],
        "expectations": found.expectations,
        "most_different": list(found.most_different),
    }


def _reason(found: Calibration, summary: dict[str, Any]) -> str:
    if found.generic_set:
        return f"The calibration data looks like the generic set {found.generic_set}."
    if found.shared_with_production:
        return f"{found.shared_with_production} calibration documents stand in the production sample too."
    if not summary["tests"]:
        return f"Not measured: each file needs at least {2 * FOLDS} documents."
    test = summary["tests"][0]
    words = {"pass": "cannot easily be told from", "fail": "is easily told from", "inconclusive": "may differ from"}
    return f"Calibration data {words[summary['outcome']]} production (AUC {test['estimate']:.2f}, limit {THRESHOLD})."


def _scores(mine: list[str], theirs: list[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Out-of-fold scores of a logistic regression on hashed words and surface features; deterministic."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    words = HashingVectorizer(n_features=BUCKETS, ngram_range=(1, 2), alternate_sign=False, norm="l2")
    labels = np.r_[np.zeros(len(mine)), np.ones(len(theirs))]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED)
    model = LogisticRegression(C=10.0, max_iter=500, class_weight="balanced")
    scores = cross_val_predict(model, words.transform(mine + theirs), labels, cv=folds, method="decision_function")
    rounded = [round(float(score), 6) for score in scores]
    return tuple(rounded[: len(mine)]), tuple(rounded[len(mine) :])


def surface(text: str) -> dict[str, float]:
    """What can be seen of a document without reading it."""
    words, length = text.split(), max(len(text), 1)
    return {
        "characters": float(len(text)),
        "characters per word": sum(map(len, words)) / max(len(words), 1),
        "share of digits": sum(one.isdigit() for one in text) / length,
        "share of capitals": sum(one.isupper() for one in text) / length,
        "share of punctuation": sum(not one.isalnum() and not one.isspace() for one in text) / length,
        "lines": float(text.count("\n") + 1),
    }


def _most_different(mine: list[str], theirs: list[str]) -> list[dict[str, Any]]:
    """Surface features, the most different (in pooled standard deviations) first."""
    left, right = [surface(one) for one in mine], [surface(one) for one in theirs]
    found = []
    for feature in left[0]:
        a: NDArray[np.float64] = np.array([one[feature] for one in left])
        b: NDArray[np.float64] = np.array([one[feature] for one in right])
        spread = float(np.sqrt((a.var() + b.var()) / 2)) or 1.0
        found.append((abs(float(a.mean() - b.mean())) / spread, feature, float(a.mean()), float(b.mean())))
    found.sort(reverse=True)
    return [{"feature": name, "calibration": a, "production": b} for _, name, a, b in found[:5]]


def _record(path: Path, documents: list[str], source: str | None, license: str | None) -> DataRecord:
    return DataRecord(
        digest=file_digest(path),
        documents=len(documents),
        characters=sum(map(len, documents)),
        source=source,
        license=license,
    )


def _normal(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().casefold()

"""The views of likeness that need texts alone: surface, meaning, a classifier that sees both, and phrases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.calibration_words import FEWEST
from mlflow_quantgov.evidence.likeness import CLASSIFIER, MEANING, PHRASES, STANDARDS, SURFACE
from mlflow_quantgov.evidence.measure.calibration.classifier import out_of_fold_scores
from mlflow_quantgov.evidence.measure.calibration.embedding import embed, installed
from mlflow_quantgov.evidence.measure.calibration.phrases import phrase_scores
from mlflow_quantgov.evidence.measure.calibration.surface import surface
from mlflow_quantgov.evidence.measure.calibration.witness import Witness, witness
from mlflow_quantgov.evidence.predicates.calibration import Likeness

_CLIPPED = 4.0


def compare_texts(calibration: Sequence[str], production: Sequence[str]) -> tuple[Likeness, ...]:
    """Scores of every test that can be made here; without embeddings, what needs them is left out.

    Args:
        calibration: Different documents, in an order that is random to what they say.
        production: The same for production.
    """
    if min(len(calibration), len(production)) < FEWEST:
        return ()
    looks = surface(calibration), surface(production)
    tests = [compare_features(SURFACE, *standardised(*looks))]
    if installed():
        left, right = embed(calibration), embed(production)
        tests.append(compare_features(MEANING, left, right))
        scores = out_of_fold_scores(calibration, production, np.vstack(looks), np.vstack([left, right]))
        tests.append(_compare_scores(CLASSIFIER, scores))
    tests.append(_compare_scores(PHRASES, phrase_scores(calibration, production)))
    return tuple(tests)


def _compare_scores(name: str, scores: tuple[list[float], list[float]]) -> Likeness:
    left, right = map(tuple, scores)
    return Likeness(name=name, calibration=left, production=right, threshold=STANDARDS[name].threshold)


def compare_features(name: str, calibration: NDArray[np.floating], production: NDArray[np.floating]) -> Likeness:
    """Scores of a kernel two-sample test on features, shapes [documents, features]."""
    return likeness_of(name, witness(calibration, production))


def likeness_of(name: str, found: Witness) -> Likeness:
    """One test from the scores of its documents."""
    return Likeness(
        name=name,
        calibration=found.calibration,
        production=found.production,
        threshold=STANDARDS[name].threshold,
        concentration=found.concentration,
        chance=found.chance,
        itself=found.itself,
    )


def standardised(
    calibration: NDArray[np.float64], production: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features in production's own deviations, far outliers drawn in."""
    mean, spread = production.mean(axis=0), production.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    left, right = ((one - mean) / scale for one in (calibration, production))
    return np.clip(left, -_CLIPPED, _CLIPPED), np.clip(right, -_CLIPPED, _CLIPPED)

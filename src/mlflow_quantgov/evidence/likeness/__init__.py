"""Are calibration data and production traffic alike? A verdict that anyone can recompute from per-document scores.

A test holds one number per document. Passing is a finding, not the absence of one: the distance must be shown to lie
under the threshold, and "fail" that it lies over it. docs/explanation/likeness.md says how the thresholds were set.
"""

from mlflow_quantgov.evidence.likeness.area import area_under_curve
from mlflow_quantgov.evidence.likeness.percentages import percentages
from mlflow_quantgov.evidence.likeness.verdict import (
    ACTIVATIONS,
    CLASSIFIER,
    MEANING,
    MIN_DOCUMENTS,
    PHRASES,
    STANDARDS,
    SURFACE,
    TEXT_TESTS,
    Standard,
    judge,
    overall,
)

__all__ = [
    "ACTIVATIONS",
    "CLASSIFIER",
    "MEANING",
    "MIN_DOCUMENTS",
    "PHRASES",
    "STANDARDS",
    "SURFACE",
    "TEXT_TESTS",
    "Standard",
    "area_under_curve",
    "judge",
    "overall",
    "percentages",
]

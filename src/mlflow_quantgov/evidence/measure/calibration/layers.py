"""The third view of likeness: what the parent's layers read on calibration data against production, layer by layer.

Every layer has a Gaussian kernel of its own on its own features, divided by production's spread in it, and the test's
kernel is their mean. So each layer counts the same, and the test's distance is exactly the mean of the layers'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.likeness import ACTIVATIONS
from mlflow_quantgov.evidence.measure.calibration.views import likeness_of, standardised
from mlflow_quantgov.evidence.measure.calibration.witness import distance, gaussian, witness_of
from mlflow_quantgov.evidence.predicates.calibration import Likeness

_DIGITS = 6


@dataclass(frozen=True)
class Comparison:
    """The test over all layers, and how far apart the sides are in each."""

    likeness: Likeness
    distances: tuple[float, ...]
    """Squared discrepancy of each layer as a share of production's spread there, in the order of `inputs`."""


def compare_layers(
    calibration: NDArray[np.float32], production: NDArray[np.float32], inputs: tuple[int, ...]
) -> Comparison:
    """Compare two sides by what the layers read.

    Args:
        calibration: Features, shape [documents, inputs, features], at least four documents in an order that is random to
            what they say.
        production: The same for production.
        inputs: For each layer, the number of the input that it reads; at least one layer.
    """
    documents = len(calibration), len(production)
    kernel = np.zeros((sum(documents), sum(documents)))
    of_input: dict[int, float] = {}
    for one in sorted(set(inputs)):
        left, right = standardised(calibration[:, one].astype(np.float64), production[:, one].astype(np.float64))
        part, spread = gaussian(np.vstack([left, right]), documents[0])
        of_input[one] = round(distance(part, documents[0], spread), _DIGITS)
        kernel += part * (inputs.count(one) / (len(inputs) * spread))
    found = witness_of(kernel, documents[0], 1.0)
    return Comparison(likeness_of(ACTIVATIONS, found), tuple(of_input[one] for one in inputs))

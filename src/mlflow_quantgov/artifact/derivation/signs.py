"""What the signs of a codebook say: they are stored beside its entries, and a quantizer copies them from the weights.

Of eight signs that are stored in seven bits an even number is negative. Where the parent has an odd number, the
quantizer turns one of them, which one depends on the importance that it gave the weights. So against the true parent
exactly one of eight differs where the parent's are odd, and none where they are even.
Source: quantize_row_iq2_xs_impl and quantize_row_iq3_s_impl in ggml-quants.c of llama.cpp.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.dequantize.interface import Floats

SAMPLE = 1 << 16
"""Weights that are kept of a matrix to see what a change of them would do."""
_TOGETHER = 8
_LEAST_EVENTS = 20
_STEPS = 40


def wrong_signs(weights: Floats, values: Floats, signs: str) -> NDArray[np.int64]:
    """Signs that are not what the parent's weights give, per row.

    Args:
        weights: The parent's, [rows, columns].
        values: The stored ones.
        signs: Rule of the codebook; see `Codebook`.
    """
    if signs == "mixed":
        return np.zeros(len(weights), dtype=np.int64)
    negative = weights < 0
    differs = (negative != np.signbit(values)) & (values != 0)
    if signs == "kept":
        return np.asarray(differs.sum(axis=1, dtype=np.int64))
    groups = (len(weights), -1, _TOGETHER)
    odd = negative.reshape(groups).sum(axis=2) & 1
    known = (values != 0).reshape(groups).all(axis=2)
    wrong = np.where(known, np.abs(differs.reshape(groups).sum(axis=2) - odd), 0)
    return np.asarray(wrong.sum(axis=1, dtype=np.int64))


def change_of_signs(share: float, sample: Floats, signs: str) -> float:
    """Relative change of the parent at which a share of the signs is wrong; inf where none does that.

    The weights of the sample are changed at random and their signs encoded as the quantizer does it where all weights
    are equally important, which hides most: the sign that it turns is then the one that a small change turns, too.

    Args:
        share: Wrong signs over weights that are excluded.
        sample: Some of the parent's rows, [rows, columns].
        signs: Rule of the codebook.
    """
    spread = math.sqrt(float(np.mean(np.square(sample, dtype=np.float64))))
    share = max(share, _LEAST_EVENTS / sample.size)
    noise = np.random.default_rng(0).standard_normal(sample.shape, dtype=np.float32)

    def wrong(change: float) -> float:
        encoded = _encoded(sample + np.float32(change) * noise, signs)
        return float(wrong_signs(sample, encoded, signs).sum()) / sample.size

    if not spread or signs == "mixed" or wrong(spread) < share:
        return math.inf
    low, high = 0.0, spread
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if wrong(middle) > share else (middle, high)
    return high / spread


def _encoded(weights: Floats, signs: str) -> Floats:
    """Ones with the signs that the quantizer stores for weights of equal importance."""
    values = np.where(weights < 0, np.float32(-1), np.float32(1))
    if signs == "even":
        groups = values.reshape(-1, _TOGETHER)
        smallest = np.abs(weights).reshape(-1, _TOGETHER).argmin(axis=1)
        odd = ((groups < 0).sum(axis=1) & 1).nonzero()[0]
        groups[odd, smallest[odd]] *= -1
    return values

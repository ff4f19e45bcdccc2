"""What rounding the weights costs in a layer's output, on given inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mlflow_quantgov.artifact.dequantize import Matrix, matrices
from mlflow_quantgov.artifact.dequantize.interface import Floats
from mlflow_quantgov.artifact.derivation.compare import folded_factors
from mlflow_quantgov.artifact.derivation.measure import Factors
from mlflow_quantgov.artifact.derivation.pairs import Pairs, pair


def quantized_pairs(child: Path, parent: Path) -> Pairs | None:
    """Tensors of a quantized model and of its parent, matched; None where they cannot be.

    Raises:
        ArtifactError: One of the models cannot be inspected.
    """
    pairs = pair(matrices(child), matrices(parent))
    return pairs if pairs.problem is None else None


def output_errors(
    pairs: Pairs,
    inputs_of: Callable[[str], Sequence[Floats] | None],
    progress: Callable[[float], None] | None = None,
) -> dict[str, tuple[float, ...]]:
    """Relative error of each quantized matrix's output, ||X (W - Wq)^T||^2 / ||X W^T||^2, matrix by matrix.

    Wq is dequantized, and scales that were moved between layers are taken back; a matrix for which nobody can do that is
    left out. Only the rounding of weights is seen: activations stay as they are.

    Args:
        pairs: Tensors of both sides.
        inputs_of: Gives sets of inputs X, each of shape [tokens, columns], to a matrix by its name; None for none.
        progress: Called with a fraction from 0 to 1.

    Returns:
        By the matrix's name, the error on each set of inputs.
    """
    found: dict[str, tuple[float, ...]] = {}
    for number, (name, factors) in enumerate(folded_factors(pairs), 1):
        inputs, child = inputs_of(name), pairs.child[name]
        if inputs is not None and factors is not None and all(one.shape[1] == child.columns for one in inputs):
            errors = _errors(child, pairs.parent[name], factors, inputs)
            if np.isfinite(errors).all():
                found[name] = errors
        if progress is not None:
            progress(number / len(pairs.quantized))
    return found


def _errors(child: Matrix, parent: Matrix, factors: Factors, inputs: Sequence[Floats]) -> tuple[float, ...]:
    """Squared errors over squared outputs, a few rows at a time."""
    lost, whole = np.zeros(len(inputs)), np.zeros(len(inputs))
    for start, stop in child.blocks():
        weights, values = parent.block(start, stop).values, child.block(start, stop).values
        if factors.columns is not None:
            values = values / factors.columns
        if factors.rows is not None:
            values = values / factors.rows[start:stop, None]
        for at, rows in enumerate(inputs):
            lost[at] += float(np.square(rows @ (weights - values).T, dtype=np.float64).sum())
            whole[at] += float(np.square(rows @ weights.T, dtype=np.float64).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(float(one) for one in lost / whole)

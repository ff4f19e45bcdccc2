"""What a dequantizer yields: matrices that are read in row blocks, so that no more than a few of them are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.errors import ArtifactError

BLOCK_WEIGHTS = 1 << 18
"""Weights of one row block. A dozen float32 arrays of that size (12 MB) are alive at once while models are compared."""
_ROWS = 32
"""Formats that pack along the output hold up to 32 rows in a word."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """Some rows of a matrix, each weight with the cell of its grid that rounds to it."""

    values: Floats
    """Dequantized weights, [rows, columns]."""
    below: Floats | None = None
    """Half the distance to the next lower value that its code could have had; infinite where it is the lowest one.
    None for weights that were not quantized, and for entries of a codebook."""
    above: Floats | None = None
    """The same upwards."""
    blur: Floats | None = None
    """What the stored precision of offsets leaves open beyond that, in units of the weights; None for nothing."""


@dataclass(frozen=True)
class Codebook:
    """What is known of a type that stores several weights as one entry of a table, so that no single one has a cell."""

    reach: float
    """Relative error that the type's own quantizer leaves on normally distributed weights."""
    signs: Literal["kept", "even", "mixed"]
    """`kept`: every sign is the parent's. `even`: of eight signs an even number is negative; where the parent's are
    odd, one is turned. `mixed`: an entry chooses its signs with its sizes."""


@dataclass(frozen=True)
class Matrix:
    """One weight tensor of an artifact under its Hugging Face name. Vectors are matrices of one row."""

    name: str
    """`model.layers.0.self_attn.q_proj.weight`, say."""
    shape: tuple[int, ...]
    """Logical shape; leading dimensions count as rows."""
    kind: str
    """Storage type (`gptq`, `Q4_K`, `F16`)."""
    parts: tuple[str, ...]
    """Names of the stored tensors that it consists of."""
    read: Callable[[int, int], Block]
    """Rows from the first number up to the second."""
    bits: float | None = None
    """None where it is not quantized."""
    group_size: int | None = None
    slack: float = 0.0
    """Relative precision of the arithmetic that stands between the parent's weights and the stored scale."""
    codebook: Codebook | None = None
    """Set where weights have no cells because several are stored as one."""
    problem: str | None = None
    """Why it cannot be dequantized here; then it must not be read."""
    is_other: bool = False
    """Whether it is a stored tensor that is neither of floats nor a part of a quantized matrix."""
    claim: str | None = None
    """Of a graph's tensor: the name that the graph tells, perhaps for several; empty where it tells none. None for
    containers that name their tensors."""
    is_weight: bool = True
    """False for a graph's constant that no matrix product and no embedding takes; it may be no weight at all."""
    columns_of: Callable[[int, slice], Floats] | None = None
    """Some columns of one matrix of a stack (of the only one: number 0) as rows; None where only whole rows can be read."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Weights per row."""
        return self.shape[-1] if self.shape else 1

    def block(self, start: int, stop: int) -> Block:
        """Some rows, checked.

        Raises:
            ArtifactError: Scales, zero points or tables do not fit the codes, or the file changed.
        """
        try:
            # Scales that are not finite, or too large, give weights that are not finite; these are judged.
            with np.errstate(over="ignore", invalid="ignore"):
                found = self.read(start, stop)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, ZeroDivisionError) as error:
            raise self._unsound(str(error)) from error
        if found.values.shape != (stop - start, self.columns):
            raise self._unsound(f"{found.values.shape} weights where {(stop - start, self.columns)} are due")
        return found

    def _unsound(self, problem: str) -> ArtifactError:
        return ArtifactError(
            f"{self.name[:200]} cannot be dequantized: its parts do not fit each other ({problem[:200]}).",
            why="Its numbers cannot be compared with a parent's.",
            fix="copy or download the folder again, or quantize it again",
        )

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Bounds of the row blocks, in order."""
        step = max(1, BLOCK_WEIGHTS // max(self.columns, 1))
        step = step // _ROWS * _ROWS or step
        for start in range(0, self.rows, step):
            yield start, min(start + step, self.rows)


def unreadable(
    name: str,
    shape: tuple[int, ...],
    kind: str,
    parts: tuple[str, ...],
    bits: float | None,
    problem: str,
) -> Matrix:
    """A matrix whose layout is not known well enough to give numbers."""

    def read(start: int, stop: int) -> Block:
        raise ArtifactError(
            f"{name[:200]} cannot be dequantized here: {problem}.",
            why="Its numbers cannot be compared with a parent's.",
            fix="prove its lineage up to structure",
        )

    return Matrix(name, shape, kind, parts, read, bits, problem=problem)


def slack_of(scale: Tensor) -> float:
    """Relative rounding error of numbers stored as a scale is; quantizers compute their codes in that precision."""
    return {"BF16": 2.0**-8, "F16": 2.0**-11}.get(scale.dtype, 2.0**-20)

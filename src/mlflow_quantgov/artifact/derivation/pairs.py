"""Which tensor of a quantized model stands for which of its parent."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from mlflow_quantgov.artifact.dequantize import Matrix
from mlflow_quantgov.artifact.derivation.descent import LayerDescent
from mlflow_quantgov.artifact.derivation.graph_tensors import MOST_COLUMNS, OUTPUT, align, is_shared, share_output
from mlflow_quantgov.artifact.derivation.spelling import as_child_spells
from mlflow_quantgov.artifact.derivation.tables import is_table
from mlflow_quantgov.artifact.formats.scaled import ACTIVATION_SCALES, CACHE_SCALES, CACHE_ZEROS

_GGUF_NAMES = ("blk.", "token_embd", "enc.blk.", "dec.blk.")
"""Begin the names of tensors that have no Hugging Face name, as nobody mapped their architecture's."""
_STRANGE = "The graph holds it, and no tensor of the parent that is left has its shape and numbers."
_MEASURED = (*ACTIVATION_SCALES, *CACHE_SCALES, ".output_scale")
"""Scales of activations and of the cache, measured on data; no parent has them."""


@dataclass(frozen=True)
class Pairs:
    """Tensors of both sides by Hugging Face name."""

    child: dict[str, Matrix]
    parent: dict[str, Matrix]
    quantized: tuple[str, ...] = ()
    """Names of quantized matrices, in order."""
    plain: tuple[str, ...] = ()
    """Names of unquantized tensors."""
    unreadable: tuple[LayerDescent, ...] = ()
    """Tensors that cannot be compared."""
    norm_shift: float = 0.0
    """What the model adds to a stored norm before it multiplies with it."""
    problem: str | None = None
    contradicts: bool = False
    """Whether the problem shows that they are different models."""

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of unquantized vectors."""
        return tuple(name for name in self.plain if name.endswith("norm.weight"))


def pair(child: dict[str, Matrix], parent: dict[str, Matrix]) -> Pairs:
    """Match both sides by name; a shared output matrix is stored once or twice."""
    # What a graph adds in a module that is called like a table is no table.
    child = {name: one for name, one in child.items() if one.claim is not None or not is_table(one)}
    parent = {name: one for name, one in parent.items() if not is_table(one)}
    child = {name: one for name, one in child.items() if name in parent or not _is_measured(one)}
    # Whole numbers and the like may still be loaded as a parameter: they contradict nothing, and prove nothing.
    strange = [one for name, one in child.items() if one.is_other and name not in parent]
    child = {name: one for name, one in child.items() if name in parent or not one.is_other}
    quantized = [name for name, one in parent.items() if one.bits is not None]
    if quantized:
        return _failed(child, parent, f"The parent is itself quantized ({parent[quantized[0]].kind}).", False)
    aligned = align(child, parent)
    child, parent = aligned.child, aligned.parent
    if aligned.foreign:
        first, count = aligned.foreign[0], len(aligned.foreign)
        problem = f"The graph's matrix {first.name} {first.shape} is like none of the parent's ({count} such)."
        return _failed(child, parent, problem, True)
    parent = as_child_spells(child, parent)
    if OUTPUT in child:
        share_output(parent)
    unknown = sorted(child.keys() - parent.keys())
    if any(name.startswith(_GGUF_NAMES) for name in unknown):
        problem = f"Which of the parent's tensors {unknown[0]} and {len(unknown) - 1} others are is not known here."
        return _failed(child, parent, problem, False)
    if unknown:
        return _failed(child, parent, f"The parent has no tensor {unknown[0]} ({len(unknown)} such).", True)
    missing = sorted(name for name in parent.keys() - child.keys() if not (name == OUTPUT and is_shared(parent)))
    if missing:
        unread = next(
            (f" {one.name[:100]} cannot be read: {one.problem}." for one in aligned.strange if one.problem), ""
        )
        problem = f"The tensor {missing[0]} of the parent is missing ({len(missing)} such).{unread}"
        return _failed(child, parent, problem, not unread)
    for name, one in child.items():
        if (one.rows, one.columns) != (parent[name].rows, parent[name].columns):
            return _failed(child, parent, f"{name} is {one.shape}, the parent's is {parent[name].shape}.", True)
        if one.columns > MOST_COLUMNS:
            return _failed(child, parent, f"{name} has rows of {one.columns:,} weights, too long to compare.", False)
    readable = {name: one for name, one in child.items() if one.problem is None and one.rows * one.columns}
    return Pairs(
        child=child,
        parent=parent,
        quantized=tuple(sorted(name for name, one in readable.items() if one.bits is not None)),
        plain=tuple(sorted(name for name, one in readable.items() if one.bits is None)),
        unreadable=(
            *(_not_compared(one) for one in child.values() if one.problem is not None),
            *(_not_compared(one) for one in (*aligned.strange, *strange)),
        ),
        norm_shift=1.0 if _adds_one(child) else 0.0,
    )


def _is_measured(one: Matrix) -> bool:
    """Whether a tensor was measured on data: a zero point, or positive scales."""
    if one.name.endswith(CACHE_ZEROS):
        return True
    if not one.name.endswith(_MEASURED) or one.problem is not None or one.columns > MOST_COLUMNS:
        return False
    values = (one.block(*at).values for at in one.blocks())
    return all(bool(np.isfinite(each).all() and (each > 0).all()) for each in values)


def _adds_one(child: dict[str, Matrix]) -> bool:
    """Gemma's blocks multiply with one plus the norm; its four norms per block tell it from the others."""
    return any(name.endswith("pre_feedforward_layernorm.weight") for name in child)


def _failed(child: dict[str, Matrix], parent: dict[str, Matrix], problem: str, contradicts: bool) -> Pairs:
    return Pairs(child, parent, problem=problem, contradicts=contradicts)


def _not_compared(matrix: Matrix) -> LayerDescent:
    return LayerDescent(
        name=matrix.name,
        kind=matrix.kind,
        bits=matrix.bits,
        group_size=matrix.group_size,
        weights=prod(matrix.shape),
        relative_error=0.0,
        reachable_error=None,
        sqnr_db=None,
        outside=0.0,
        by_chance=None,
        resolution=None,
        trace="none",
        problem=f"It cannot be dequantized here: {matrix.problem}." if matrix.problem else _STRANGE,
    )

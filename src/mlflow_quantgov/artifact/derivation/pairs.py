"""Which tensor of a quantized model stands for which of its parent."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from mlflow_quantgov.artifact.dequantize import Matrix
from mlflow_quantgov.artifact.derivation.descent import LayerDescent
from mlflow_quantgov.artifact.formats.scaled import ACTIVATION_SCALES, CACHE_SCALES

_EMBEDDING = "model.embed_tokens.weight"
_OUTPUT = "lm_head.weight"
_MOST_COLUMNS = 1 << 20
"""Rows are the smallest piece that is read; the widest known model has 53,248 columns."""
# Tables that follow from the config: no weights, and not every container keeps them.
_TABLES = ("rotary_emb.inv_freq", "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight",
           "attn.bias", "attn.masked_bias", "position_ids")  # fmt: skip
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
    child = {name: one for name, one in child.items() if not name.endswith((*_TABLES, *_MEASURED))}
    parent = {name: one for name, one in parent.items() if not name.endswith(_TABLES)}
    quantized = [name for name, one in parent.items() if one.bits is not None]
    if quantized:
        return _failed(child, parent, f"The parent is itself quantized ({parent[quantized[0]].kind}).", False)
    if _OUTPUT in child and _OUTPUT not in parent and _EMBEDDING in parent:
        parent[_OUTPUT] = parent[_EMBEDDING]
    unknown = sorted(child.keys() - parent.keys())
    if unknown:
        return _failed(child, parent, f"The parent has no tensor {unknown[0]} ({len(unknown)} such).", True)
    missing = sorted(name for name in parent.keys() - child.keys() if name != _OUTPUT)
    if missing:
        return _failed(child, parent, f"The tensor {missing[0]} of the parent is missing ({len(missing)} such).", True)
    for name, one in child.items():
        theirs = parent[name].shape
        if one.shape != theirs and prod(one.shape) != prod(theirs):
            return _failed(child, parent, f"{name} is {one.shape}, the parent's is {theirs}.", True)
        if (one.rows, one.columns) != (parent[name].rows, parent[name].columns):
            return _failed(child, parent, f"{name} is {one.shape}, the parent's is {theirs}.", True)
        if one.columns > _MOST_COLUMNS:
            return _failed(child, parent, f"{name} has rows of {one.columns:,} weights, too long to compare.", False)
    readable = {name: one for name, one in child.items() if one.problem is None and one.rows * one.columns}
    return Pairs(
        child=child,
        parent=parent,
        quantized=tuple(sorted(name for name, one in readable.items() if one.bits is not None)),
        plain=tuple(sorted(name for name, one in readable.items() if one.bits is None)),
        unreadable=tuple(_not_compared(one) for one in child.values() if one.problem is not None),
        norm_shift=1.0 if _adds_one(child) else 0.0,
    )


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
        problem=f"It cannot be dequantized here: {matrix.problem}.",
    )

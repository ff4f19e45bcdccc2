"""What the dequantizers of graphs share: Hugging Face's names of stored tensors, and matrices under them.

A graph names few of its tensors as the parent does. What it tells (the module that an operation was traced in) is taken;
what it does not tell is left to `derivation/graph_tensors.py`, which looks for the parent's tensor that it resembles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mlflow_quantgov.artifact.dequantize.interface import Matrix, slack_of, unreadable
from mlflow_quantgov.artifact.dequantize.planes import Grid, Plane, plain_reader
from mlflow_quantgov.artifact.dequantize.positions import tells_positions
from mlflow_quantgov.artifact.formats.codes import place_of
from mlflow_quantgov.artifact.formats.graph import BUFFER, NARROW
from mlflow_quantgov.artifact.formats.onnx_uses import DEQUANTIZE, LAYOUT, Uses
from mlflow_quantgov.artifact.graph_structure import scope_name, stored_name
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor
from mlflow_quantgov.artifact.tensors.onnx_scopes import Node

# Modules of GPT-2 that keep their matrices as [in, out].
_TURNED = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)$")
_BIAS = re.compile(r"^(?:self\.|__module\.)?([\w.\-]+)\.bias$")
# Operation -> place of a vector among its inputs -> what the module calls it.
_VECTORS: dict[str, dict[int, str]] = {
    "Mul": {0: "weight", 1: "weight"}, "Multiply": {0: "weight", 1: "weight"}, "Add": {0: "bias", 1: "bias"},
    "LayerNormalization": {1: "weight", 2: "bias"}, "SimplifiedLayerNormalization": {1: "weight"},
    "RMSNormalization": {1: "weight"}, "SkipLayerNormalization": {2: "weight", 3: "bias"},
    "SkipSimplifiedLayerNormalization": {2: "weight"}, "Gemm": {2: "bias"}, "FusedGemm": {2: "bias"},
    "RMS": {1: "weight"},
}  # fmt: skip
# Operations whose outputs are whole numbers where their inputs are.
_WHOLE = LAYOUT | {
    "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Gather", "GatherND", "GatherElements", "Slice", "Concat", "Expand", "Tile",
    "Split", "Where", "Pad", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Min", "Max", "ReduceSum",
}  # fmt: skip
_COUNTED = frozenset({"I16", "U16", "I32", "U32", "I64", "U64"})
_FLOAT_TYPES = frozenset({1, 10, 11, 16})
"""ONNX's numbers of float32, float16, float64 and bfloat16."""
_MOST_FOLLOWED = 256
_PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm"})
# Operation -> places of its tables of sines and cosines.
_POSITIONS = {"GroupQueryAttention": (7, 8), "RotaryEmbedding": (1, 2, 3), "PagedAttention": (7, 8)}


@dataclass(frozen=True)
class Stored:
    """A weight matrix where it lies: `tensor` as a table, and how the parent would see it."""

    tensor: Tensor
    operation: str
    """Name of the operation that takes it."""
    shape: tuple[int, ...]
    """[out, in]."""
    turned: bool
    """Whether it is stored as [in, out]."""
    parts: tuple[str, ...]
    """Names of all stored tensors that belong to it."""

    @property
    def module(self) -> str | None:
        """Hugging Face's name of the module, where the graph tells it."""
        return scope_name(self.operation) or stored_name(self.tensor.name)

    def as_parent(self) -> Stored:
        """Turned round where the parent itself keeps [in, out]."""
        if self.module is None or not _TURNED.search(self.module) or len(self.shape) != 2:
            return self
        return replace(self, shape=self.shape[::-1], turned=not self.turned)


def quantized(one: Stored, grid: Grid | str, kind: str, bits: float, group: int | None, slack: float = 0.0) -> Matrix:
    """A quantized matrix; instead of a grid the reason why there is none."""
    claim = f"{one.module}.weight" if one.module else ""
    name = claim or one.tensor.name
    if isinstance(grid, str):
        return replace(unreadable(name, one.shape, kind, one.parts, bits, grid), claim=claim)
    slack = slack or slack_of(grid.scale.plane.tensor)
    return Matrix(name, one.shape, kind, one.parts, grid.read, bits, group, slack, claim=claim)


def plain(one: Stored) -> Matrix:
    """A matrix of floats."""
    claim = f"{one.module}.weight" if one.module else ""
    # A single number has no sides.
    columns = max(one.tensor.shape[-1], 1) if one.tensor.shape else 1
    table = Plane(one.tensor, one.tensor.elements // columns, columns)
    return Matrix(
        claim or one.tensor.name, one.shape, one.tensor.dtype, one.parts, plain_reader(table, one.turned), claim=claim
    )


def vectors(tensor: Tensor, takers: Iterable[tuple[Node, int]]) -> Iterator[Matrix]:
    """A stored vector (a norm, a bias) under every name that its uses give it; nothing for a table of positions."""
    seen: set[str] = set()
    for node, place in takers:
        if _is_position(tensor, node, place):
            continue
        part = _VECTORS.get(node.op, {}).get(place)
        module = scope_name(node.name)
        claim = f"{module}.{part}" if part and module else _stored_vector(tensor.name)
        if claim not in seen:
            seen.add(claim)
            yield _vector(tensor, claim)


def unplaced(tensor: Tensor) -> Matrix:
    """A stored constant of which nobody knows where it goes."""
    return _vector(tensor, "")


def _is_position(tensor: Tensor, node: Node, place: int) -> bool:
    """Whether a constant tells positions: by its use or its name, and by what it holds."""
    named = BUFFER.search(tensor.name) or BUFFER.search(node.name)
    used = place in _POSITIONS.get(node.op, ())
    multiplied = node.op in _PRODUCTS and sum(side > 1 for side in tensor.shape) > 1
    return (used or (bool(named) and not multiplied)) and tells_positions(tensor)


def _vector(tensor: Tensor, claim: str) -> Matrix:
    table = Plane(tensor, 1, tensor.elements)
    rank = max(tensor.shape, default=1)
    shape = (tensor.elements,) if tensor.elements == rank else tensor.shape
    if len(shape) > 1:
        table = Plane(tensor, tensor.elements // shape[-1], shape[-1])
    read = plain_reader(table, turned=False)
    return Matrix(claim or tensor.name, shape, tensor.dtype, (tensor.name,), read, claim=claim, is_weight=False)


def _stored_vector(name: str) -> str:
    found = stored_name(name)
    if found:
        return f"{found}.weight"
    bias = _BIAS.match(name)
    return f"{bias[1]}.bias" if bias else ""


@dataclass
class Collected:
    """Matrices of one graph, each stored tensor once under each of its names."""

    found: dict[str, Matrix] = field(default_factory=dict)
    places: set[tuple[str, tuple[str, int, int]]] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    """Names of stored tensors that are accounted for."""

    def add(self, one: Matrix, tensor: Tensor) -> None:
        """Keep a matrix; another one of the same name gets its stored name behind it."""
        self.used |= set(one.parts)
        key = (one.claim or "", place_of(tensor))
        if key in self.places:
            return
        self.places.add(key)
        name = one.name if one.name not in self.found else f"{one.name} ({tensor.name})"
        while name in self.found:
            name = f"{name} again"
        self.found[name] = replace(one, name=name)


def is_left_over(tensor: Tensor, used: set[str]) -> bool:
    """Whether a tensor holds floats that nothing has accounted for yet; single constants are no weights."""
    return tensor.dtype in FLOATS and tensor.elements > 1 and tensor.name not in used


def hidden(tensor: Tensor, uses: Uses, used: set[str]) -> Matrix | None:
    """A constant of whole numbers, or of narrow floats, that becomes floats as no quantized matrix does.

    Shapes, indices, masks and positions stay whole numbers, or count upwards from zero.

    Args:
        tensor: The constant.
        uses: Of its graph.
        used: Names of stored tensors that are accounted for.
    """
    if tensor.dtype in FLOATS or tensor.elements < 2 or tensor.name in used or not _becomes_floats(tensor, uses):
        return None
    problem = f"it holds numbers of the type {tensor.dtype} that become floats, and no quantized matrix takes them"
    return replace(
        unreadable(tensor.name, tensor.shape, tensor.dtype, (tensor.name,), None, problem), claim="", is_other=True
    )


def _becomes_floats(tensor: Tensor, uses: Uses) -> bool:
    if tensor.dtype in NARROW:
        return True  # codes have no other use
    if tensor.dtype in _COUNTED:
        values = np.asarray(tensor.stored()).reshape(-1)
        if np.array_equal(values, np.arange(len(values))):
            return False
    left, seen = [tensor.name], {tensor.name}
    while left and len(seen) < _MOST_FOLLOWED:
        for node, _ in uses.takers.get(left.pop(), []):
            if node.op in DEQUANTIZE or (node.op == "Cast" and node.number("to", 0) in _FLOAT_TYPES):
                return True
            if node.op in _WHOLE:
                left += [name for name in node.outputs if name and name not in seen]
                seen.update(node.outputs)
    return bool(left)

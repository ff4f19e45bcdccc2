"""OpenVINO: constants with their scale and zero point, as nncf writes them. See `formats/openvino.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlflow_quantgov.artifact.dequantize.graph import Collected, Stored, hidden, is_left_over, plain, quantized, vectors
from mlflow_quantgov.artifact.dequantize.interface import Floats, Matrix
from mlflow_quantgov.artifact.dequantize.numbers import E2M1, FLOAT8, NF4
from mlflow_quantgov.artifact.dequantize.planes import LIMITS, Grid, Plane, Spread
from mlflow_quantgov.artifact.formats.graph import NARROW, WeightUse
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.onnx_uses import Uses
from mlflow_quantgov.artifact.formats.openvino import MOVES, Path, Walk, is_turned
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor
from mlflow_quantgov.artifact.tensors.onnx_scopes import Node

_TABLES = {**FLOAT8, "NF4": NF4, "F4": E2M1}
_READABLE = frozenset({"U8", "I8", "U4", "I4", *_TABLES})
_SMOOTHED = "nncf_smooth_quant"
_STEPS = 8
_MOST_INPUTS = 1 << 20


def openvino_matrices(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Every weight of the graph: quantized, of floats, and vectors."""
    assert files.openvino is not None
    uses = Uses(files.openvino.graph)
    walk = Walk(files, uses)
    collected = Collected()
    for tensor in uses.graph.tensors.values():
        if not tensor.elements or tensor.dtype not in NARROW | FLOATS.keys() or len(tensor.shape) < 2:
            continue
        for path, node, place, kind in walk.ways(tensor):
            use = walk.weight(tensor, path, node, place, kind)
            if _is_weight(use) and (use.bits is not None or tensor.dtype in FLOATS):
                collected.add(_matrix(uses, path, node, place, use), tensor)
    for tensor in uses.graph.tensors.values():
        if is_left_over(tensor, collected.used):
            for vector in vectors(tensor, _takers(uses, tensor)):
                collected.add(vector, tensor)
        elif (one := hidden(tensor, uses, collected.used)) is not None:
            collected.add(one, tensor)
    yield from collected.found.values()


def _is_weight(use: WeightUse) -> bool:
    """Whether it has more than one side: frequencies of positions are multiplied like a matrix."""
    return sum(side > 1 for side in use.tensor.shape) >= 2


def _takers(uses: Uses, tensor: Tensor) -> Iterator[tuple[Node, int]]:
    """Operations that take a constant, behind what only moves it; ranges of activations are no weights."""
    left = [tensor.name]
    for _ in range(_STEPS):
        if not left:
            return
        for node, place in uses.takers.get(left.pop(0), [])[:_STEPS]:
            if node.op in MOVES and place == 0:
                left.append(node.outputs[0])
            elif node.op != "FakeQuantize" or place == 0:
                yield node, place


def _matrix(uses: Uses, path: Path, node: Node, place: int, use: WeightUse) -> Matrix:
    tensor = use.tensor
    inputs = _smoothed(uses, node, place) if node.op == "MatMul" else None
    parts = (tensor.name, *use.parts, *((inputs.name,) if inputs is not None else ()))
    one = Stored(tensor, node.name, use.shape, is_turned(path, node, place), parts).as_parent()
    if tensor.dtype in FLOATS:
        return plain(one)
    return quantized(one, _grid(one, path, inputs), tensor.dtype, use.bits or 0, use.group_size)


def _smoothed(uses: Uses, node: Node, place: int) -> Tensor | None:
    """What nncf multiplies the inputs of a matrix with, after it divided the matrix by it (SmoothQuant)."""
    value = node.input(1 - place)
    for _ in range(_STEPS):
        maker = uses.makers.get(value)
        if maker is None:
            return None
        if maker.op == "Multiply" and maker.name.endswith(_SMOOTHED):
            return next((found for name in maker.inputs if (found := uses.graph.tensors.get(name))), None)
        if maker.op not in {"FakeQuantize", "Convert"}:
            return None
        value = maker.input(0)
    return None


def _grid(one: Stored, path: Path, inputs: Tensor | None) -> Grid | str:
    """The grid, or why there is none."""
    codes, scale = one.tensor, path.scale
    assert scale is not None, "the reader of facts refuses codes without scales"
    if codes.dtype not in _READABLE:
        return f"codes of the type {codes.dtype}"
    if path.nested:
        return "scales that are codes with a scale of their own"
    found = _Sides.of(codes.shape, scale.shape)
    if found is None:
        return f"codes of the shape {codes.shape} with scales of the shape {scale.shape}"
    factors = _factors(inputs, one) if inputs is not None else None
    if isinstance(factors, str):
        return factors
    zero: Spread | float = 0.0
    if path.zero is not None:
        others = _Sides.of(codes.shape, path.zero.shape, found.rows_are_split)
        if others is None:
            return f"codes of the shape {codes.shape} with zero points of the shape {path.zero.shape}"
        zero = others.spread(path.zero)
    low, high = LIMITS.get(codes.dtype, (0, 0))
    return Grid(
        Plane(codes, found.rows, found.columns), found.spread(scale), low, high, zero, one.turned,
        _TABLES.get(codes.dtype), factors,
    )  # fmt: skip


def _factors(inputs: Tensor, one: Stored) -> Floats | str:
    """One positive factor per input."""
    if inputs.elements not in {1, one.shape[-1]} or inputs.elements > _MOST_INPUTS or inputs.dtype not in FLOATS:
        return f"inputs that are multiplied with numbers of the shape {inputs.shape}"
    found = np.asarray(inputs.values(), dtype=np.float32).reshape(1, -1)
    return found if (found > 0).all() else "inputs that are multiplied with numbers below zero"


@dataclass(frozen=True)
class _Sides:
    """Codes as a table, and how many of them share a scale in each direction."""

    rows: int
    columns: int
    shared: tuple[int, int]
    """Table of the scales."""
    rows_are_split: bool
    """Whether groups lie along the rows of the table."""
    group: int = 1

    @classmethod
    def of(cls, codes: tuple[int, ...], scale: tuple[int, ...], rows_are_split: bool | None = None) -> _Sides | None:
        """Of codes [rows, columns], [rows, groups, group] or [groups, group, columns]."""
        aligned = (1,) * (len(codes) - len(scale)) + scale
        if len(aligned) != len(codes) or any(one not in {1, side} for one, side in zip(aligned, codes, strict=True)):
            return None
        if len(codes) == 2:
            return cls(codes[0], codes[1], (aligned[0], aligned[1]), False)
        if len(codes) != 3:
            return None
        split = rows_are_split if rows_are_split is not None else aligned[2] != 1
        if split:
            whole = (aligned[0], aligned[2]) if aligned[1] == 1 else None
            return cls(codes[0] * codes[1], codes[2], whole, True, codes[1]) if whole else None
        whole = (aligned[0], aligned[1]) if aligned[2] == 1 else None
        return cls(codes[0], codes[1] * codes[2], whole, False, codes[2]) if whole else None

    def spread(self, part: Tensor) -> Spread:
        """Scales or zero points of this shape."""
        table = Plane(part, *self.shared)
        return Spread(table, self.group, 1) if self.rows_are_split else Spread(table, 1, self.group)

"""What an ONNX graph stores and which operators use it, read from its bytes without its external data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import EXPANDED
from mlflow_quantgov.artifact.runtimes.onnxruntime.files import PURPOSE, not_loaded
from mlflow_quantgov.errors import require

QUANTIZED_OPS = frozenset(
    {
        "DynamicQuantizeMatMul", "MatMulBnb4", "MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits",
        "QAttention", "QGemm", "QLinearMatMul", "QMoE",
    }
)  # fmt: skip
"""Operators that multiply with quantized weights as they are."""
_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}
_LOW_BIT = {"int8", "uint8", "int4", "uint4", "int2", "uint2", "float4e2m1", "float8e4m3fn", "float8e5m2"}
_EMBEDDING_OPS = {"Gather", "GatherBlockQuantized"}
_PACKING_OPS = {"MatMulNBits", "GatherBlockQuantized", "MatMulBnb4"}
_PASSED_ON = {"DequantizeLinear", "Transpose", "Cast", "Reshape", "Identity"}
_BITS = {"int4": 4, "uint4": 4, "float4e2m1": 4, "int2": 2, "uint2": 2}


@dataclass(frozen=True)
class Weights:
    """The stored tensors of a graph and what they flow into."""

    bytes: int
    """Of all stored tensors; packing for a kernel may add padding in memory."""
    types: dict[str, int]
    """Storage type to number of tensors; with the operator where it packs several values into a byte."""
    quantized: int
    """Matrices of the layers stored below 16 bit."""
    direct: int
    """Of them, those that enter an operator of `QUANTIZED_OPS` as they are."""
    kernel: str | None
    """Operator with its attributes that takes most bytes of the layers' matrices."""


def read_weights(path: Path) -> Weights:
    """Count the stored tensors of a graph.

    Raises:
        MissingExtraError: `onnx` is not installed.
        ArtifactError: The file is no ONNX model.
    """
    onnx = require("onnx", extra="onnx", purpose=PURPOSE)
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise not_loaded(path, f"it is no ONNX model: {str(error)[:200]}") from error
    name_of = onnx.TensorProto.DataType.Name
    stored = {tensor.name: tensor for one in _graphs(graph) for tensor in one.initializer}
    users = _users(graph)
    types: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    total = quantized = direct = 0
    for tensor in stored.values():
        kind = _NAMES.get(name := name_of(tensor.data_type), name.lower())
        size = prod(tensor.dims) * _BITS.get(kind, _width(onnx, tensor.data_type)) // 8
        total += size
        node = users.get(tensor.name)
        packs = node is not None and node.op_type in _PACKING_OPS and kind in _LOW_BIT
        types[f"{node.op_type} {kind}" if node is not None and packs else kind] += 1
        if node is None or len(tensor.dims) < 2 or node.op_type in _EMBEDDING_OPS or not _is_weight(node, tensor.name):
            continue
        kernels[_kernel(node, kind)] += size
        if kind in _LOW_BIT:
            quantized += 1
            direct += node.op_type in QUANTIZED_OPS
    top = max(kernels, key=lambda kernel: kernels[kernel]) if kernels else None
    return Weights(total, dict(types), quantized, direct, top)


@dataclass(frozen=True)
class Ran:
    """What one pass did with the quantized matrices."""

    expanded_share: float | None
    """Of the matrices that are stored quantized, those that no quantized operator multiplied with; None without any."""
    kernel: str | None
    operators: tuple[str, ...] = ()
    """Quantized operators that ran, commonest first; empty where nobody looked."""

    @property
    def dequantized(self) -> bool:
        """Whether that counts."""
        return (self.expanded_share or 0) > EXPANDED


def ran_quantized(weights: Weights, ran: Mapping[str, int] | None) -> Ran:
    """How many quantized matrices were expanded, and the kernel, by the operators that really ran.

    Args:
        weights: What the graph stores.
        ran: Operators that onnxruntime executed in one pass, after its own fusions, to their number; None where
            nobody looked, and the graph's own operators are what runs.
    """
    if not weights.quantized:
        return Ran(None, weights.kernel)
    if ran is None:
        return Ran(1 - weights.direct / weights.quantized, weights.kernel)
    used = {op: count for op, count in ran.items() if op in QUANTIZED_OPS}
    names = tuple(sorted(used, key=lambda op: (-used[op], op)))
    share = max(0.0, 1 - sum(used.values()) / weights.quantized)
    if (weights.kernel or "").split(" ")[0] in used:
        return Ran(share, weights.kernel, names)
    if share > 0.5 or not names:
        return Ran(share, "DequantizeLinear, MatMul" if "DequantizeLinear" in ran else "MatMul", names)
    return Ran(share, names[0], names)


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _users(graph: Any) -> dict[str, Any]:
    """Stored tensor to the node that uses it: a multiplication before an embedding lookup (tied weights)."""
    found: dict[str, Any] = {}
    for one in _graphs(graph):
        for node in one.node:
            for name in node.input:
                before = found.get(name)
                if before is None or before.op_type in _EMBEDDING_OPS | _PASSED_ON - {"DequantizeLinear"}:
                    found[name] = node
    return found


def _is_weight(node: Any, name: str) -> bool:
    """Whether a tensor is the matrix of a node, and not its scales, zero points, or rotary tables."""
    place = list(node.input).index(name)
    if node.op_type in {"MatMulNBits", "MatMulBnb4", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}:
        return place == 1
    if node.op_type in {"QLinearMatMul", "QGemm"}:
        return place == 3
    return node.op_type in {"MatMul", "Gemm", "FusedMatMul"} | _PASSED_ON | QUANTIZED_OPS


def _kernel(node: Any, kind: str) -> str:
    """Operator, storage and the attributes that choose a kernel."""
    names = {"bits": "{} bit", "block_size": "block {}", "accuracy_level": "accuracy level {}"}
    given = {one.name: one.i for one in node.attribute if one.name in names}
    details = [text.format(given[name]) for name, text in names.items() if name in given]
    if node.op_type in {"Transpose", "Cast", "Reshape", "Identity"}:
        return f"MatMul {kind}"
    return " ".join([node.op_type, ", ".join(details)]) if details else f"{node.op_type} {kind}"


def _width(onnx: Any, data_type: int) -> int:
    """Bits of one value as stored."""
    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8

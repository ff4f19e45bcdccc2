"""What the operations of an ONNX graph use a stored tensor for."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.artifact.tensors.onnx_scopes import FlatGraph, Node

LAYOUT = frozenset({"Transpose", "Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze", "Flatten"})
"""Operations that move numbers and change none."""
DEQUANTIZE = frozenset({"DequantizeLinear", "TRT_FP8DequantizeLinear", "TRT_INT4DequantizeLinear"})
QUANTIZE = frozenset({"QuantizeLinear", "TRT_FP8QuantizeLinear", "TRT_INT4QuantizeLinear"})
FEW = 24
"""Operations that are looked at behind one value; a weight has one or two."""
_DEPTH = 8
_EMBEDDINGS = {"Gather": 0, "GatherBlockQuantized": 0, "EmbedLayerNormalization": 2, "QEmbedLayerNormalization": 2}


@dataclass(frozen=True)
class Terminal:
    """An operation that takes a stored tensor as its weight."""

    node: Node
    place: int
    """Which of its inputs the tensor is."""
    swapped: bool
    """Whether it is turned round on the way."""
    dequantize: Node | None = None
    """Through which codes become floats, on the way or right behind."""
    quantize: Node | None = None
    """Through which floats were rounded before."""

    @property
    def kind(self) -> str:
        """`matrix`, `embedding` or `other`."""
        if _EMBEDDINGS.get(self.node.op) == self.place:
            return "embedding"
        return "matrix" if self.node.op in _MATRIX else "other"

    @property
    def takes_floats(self) -> bool:
        """Whether the operation multiplies with floats in this place, or picks rows from them."""
        return (
            self.kind == "embedding"
            or _FLOAT_WEIGHTS.get(self.node.op, -1) == self.place
            or (self.node.op in {"MatMul", "FusedMatMul"} and self.place == 0)
        )

    @property
    def turned(self) -> bool:
        """Whether the weight is stored as [in, out]."""
        return self.swapped != self._transposed()

    def logical(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """[out, in] of a weight that is stored in this shape."""
        return (*shape[:-2], shape[-1], shape[-2]) if self.turned and len(shape) >= 2 else shape

    def _transposed(self) -> bool:
        """Whether the operation itself takes [in, out]."""
        if self.node.op not in _MATRIX:
            return False
        flag = "transB" if self.place else "transA"
        return bool(self.place) != bool(self.node.number(flag, 0))


_MATRIX = frozenset({
    "MatMul", "Gemm", "FusedMatMul", "FusedGemm", "TransposeMatMul", "GemmFastGelu", "MatMulInteger", "QLinearMatMul",
    "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulInteger16", "QAttention", "Attention",
    "MatMulNBits", "MatMulBnb4", "SparseToDenseMatMul",
})  # fmt: skip

_FLOAT_WEIGHTS = {
    "MatMul": 1, "Gemm": 1, "FusedMatMul": 1, "FusedGemm": 1, "TransposeMatMul": 1, "GemmFastGelu": 1, "Attention": 1,
    "Conv": 1, "ConvTranspose": 1, "FusedConv": 1, "MoE": 2,
}  # fmt: skip


class Uses:
    """Who makes and who takes each value of a graph."""

    def __init__(self, graph: FlatGraph) -> None:
        """Index a graph."""
        self.graph = graph
        self.makers: dict[str, Node] = {}
        self.takers: dict[str, list[tuple[Node, int]]] = {}
        for node in graph.nodes:
            for name in node.outputs:
                self.makers.setdefault(name, node)
            for place, name in enumerate(node.inputs):
                if name:
                    self.takers.setdefault(name, []).append((node, place))

    def terminals(self, name: str) -> list[Terminal]:
        """Operations that take a stored tensor, looked for behind what only moves or dequantizes it."""
        found: list[Terminal] = []
        left = [(name, False, None, None)]  # type: list[tuple[str, bool, Node | None, Node | None]]
        for _ in range(FEW):
            if not left or len(found) >= FEW:
                break
            value, swapped, dequantize, quantize = left.pop(0)
            for node, place in self.takers.get(value, [])[:FEW]:
                if node.op in LAYOUT and place == 0:
                    left.append(
                        (node.outputs[0] if node.outputs else "", swapped != _swaps(node), dequantize, quantize)
                    )
                elif node.op in DEQUANTIZE and place == 0 and node.outputs:
                    left.append((node.outputs[0], swapped, dequantize or node, quantize))
                elif node.op in QUANTIZE and place == 0 and node.outputs:
                    left.append((node.outputs[0], swapped, dequantize, node))
                else:
                    behind = dequantize or self._behind(node, place)
                    found.append(Terminal(node, place, swapped, behind, quantize))
        return found

    def stored(self, value: str) -> Tensor | None:
        """The stored tensor that a value is, looked for before what only moves or dequantizes it."""
        for _ in range(_DEPTH):
            if value in self.graph.tensors:
                return self.graph.tensors[value]
            maker = self.makers.get(value)
            if maker is None or maker.op not in LAYOUT | DEQUANTIZE:
                return None
            value = maker.input(0)
        return None

    def origin(self, value: str) -> Node | None:
        """The operation that makes a value, looked for before what only moves it."""
        for _ in range(_DEPTH):
            maker = self.makers.get(value)
            if maker is None or maker.op not in LAYOUT:
                return maker
            value = maker.input(0)
        return None

    def _behind(self, node: Node, place: int) -> Node | None:
        """The dequantization of the rows that an embedding picks."""
        if node.op != "Gather" or place != 0 or not node.outputs:
            return None
        return next(
            (taker for taker, at in self.takers.get(node.outputs[0], [])[:FEW] if taker.op in DEQUANTIZE and at == 0),
            None,
        )


def _swaps(node: Node) -> bool:
    order = node.numbers.get("perm")
    return node.op == "Transpose" and (order is None or (len(order) >= 2 and order[-2] == len(order) - 1))

"""ONNX, read from the graph alone: nodes, and where each tensor lies. Source: onnx/onnx.proto, IR versions 3 to 13."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mlflow_quantgov.artifact.tensors.onnx_scopes import FlatGraph, Graph, Node, flatten
from mlflow_quantgov.artifact.tensors.onnx_tensor import TensorReader, check_sharing
from mlflow_quantgov.artifact.tensors.protobuf import LENGTH, VARINT, Field, Wire, signed
from mlflow_quantgov.artifact.tensors.types import Tensor, unsound

MAX_NODES = 300_000
MAX_DEPTH = 16
"""Of graphs within graphs (the branches of an `If`, the body of a `Loop`)."""
_MAX_LISTED = 65_536
_MAX_DIMENSIONS = 64
_MAX_ENTRIES = 10_000
_TENSORS = frozenset({"value"})
_GRAPHS = frozenset({"then_branch", "else_branch", "body"})
_KEPT = frozenset({
    "axis", "block_size", "bits", "K", "N", "transA", "transB", "perm", "quant_type", "expert_weight_bits", "num_heads",
    "kv_num_heads", "gather_axis", "quantize_axis", "accuracy_level", "to", "output_dtype", "kv_cache_bit_width",
})  # fmt: skip
_LISTED = frozenset({"value_ints", "value_floats", "value_strings", "sparse_value"})
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class OnnxValue:
    """An input or output of the whole graph."""

    name: str
    dtype: int | None
    """Number of `TensorProto.DataType`; None for what is no tensor."""
    shape: tuple[int | None, ...] | None
    """None for sides that are no constants, and for a shape that is not given."""


@dataclass(frozen=True)
class OnnxFile:
    """What one file says, without its payloads."""

    path: Path
    producer: str | None
    """Name and version, as the file gives them."""
    opsets: dict[str, int]
    metadata: dict[str, str]
    graph: FlatGraph
    inputs: tuple[OnnxValue, ...]
    """Without those that are initializers."""
    outputs: tuple[OnnxValue, ...]
    external: tuple[Path, ...]
    """Files beside it that hold tensors, sorted."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Initializers and constants by name; those of inner graphs have names of their own."""
        return self.graph.tensors


def read_onnx(path: Path) -> OnnxFile:
    """Read and check the graph; no payload is read, but integers that are written one by one.

    Raises:
        ArtifactError: Not ONNX, truncated, nested too deeply, a name twice, an unknown tensor type, or tensors that do
            not lie where the file says, or in files outside its folder.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _Model(Wire(path, file, size)).read()
    except OSError as error:
        raise unsound(path, error.strerror or str(error)) from error


@dataclass
class _Model:
    wire: Wire
    texts: dict[str, str] = field(default_factory=dict)
    nodes: int = 0

    def __post_init__(self) -> None:
        self.tensors = TensorReader(self.wire)

    def read(self) -> OnnxFile:
        wire, path = self.wire, self.wire.path
        once: dict[int, Field] = {}
        opsets: dict[str, int] = {}
        metadata: dict[str, str] = {}
        functions: dict[str, Graph] = {}
        for one in wire.fields(0, wire.size):
            if one.number in {2, 3, 7}:
                if one.number in once:
                    raise unsound(path, f"its field {one.number} stands in it twice")
                once[one.number] = wire.expect(one, LENGTH)
            elif one.number == 8 and len(opsets) < _MAX_ENTRIES:
                domain, version = self.opset(wire.expect(one, LENGTH))
                opsets[domain] = version
            elif one.number == 14 and len(metadata) < _MAX_ENTRIES:
                key, value = self.tensors.entry(wire.expect(one, LENGTH))
                metadata[key] = value
            elif one.number == 25:
                name, function = self.function(wire.expect(one, LENGTH))
                functions[name] = function
        if 7 not in once:
            raise unsound(path, "it holds no graph")
        graph = self.graph(once[7], 0)
        flat = flatten(path, graph, functions)
        check_sharing(path, flat.tensors.values())
        named = " ".join(wire.text(once[number]) for number in (2, 3) if number in once).strip()
        return OnnxFile(
            path=path,
            producer=named[:200] or None,
            opsets=opsets,
            metadata=metadata,
            graph=flat,
            inputs=tuple(one for one in map(self.value, graph.inputs) if one.name not in graph.tensors),
            outputs=tuple(map(self.value, graph.outputs)),
            external=tuple(sorted({one.file for one in flat.tensors.values() if one.file != path})),
        )

    def opset(self, message: Field) -> tuple[str, int]:
        domain, version = "", 0
        for one in self.wire.fields(message.begin, message.end):
            if one.number == 1:
                domain = self.wire.text(one)
            elif one.number == 2:
                version = signed(self.wire.expect(one, VARINT).value)
        return domain, version

    def function(self, message: Field) -> tuple[str, Graph]:
        graph, names = Graph(), ["", ""]
        for one in self.wire.fields(message.begin, message.end):
            if one.number in {1, 10}:
                names[one.number == 1] = self.wire.text(one)
            elif one.number == 7:
                self.add_node(graph, one, 0)
        return ".".join(names), graph

    def graph(self, message: Field, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            raise unsound(self.wire.path, f"its graphs are nested more than {MAX_DEPTH} deep")
        graph = Graph()
        for one in self.wire.fields(message.begin, message.end):
            if one.number == 1:
                self.add_node(graph, one, depth)
            elif one.number == 5:
                graph.add_tensor(self.wire.path, self.tensors.read(self.wire.expect(one, LENGTH)))
            elif one.number in {11, 12}:
                (graph.inputs if one.number == 11 else graph.outputs).append(self.wire.expect(one, LENGTH))
            elif one.number == 15:
                raise unsound(self.wire.path, "it holds sparse tensors, which are not read here")
        return graph

    def add_node(self, graph: Graph, message: Field, depth: int) -> None:
        """Read a node; a constant becomes a tensor under the name of its output."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise unsound(self.wire.path, f"it has more than {MAX_NODES:,} nodes")
        node, constant = self.node(self.wire.expect(message, LENGTH), depth)
        if constant is None or len(node.outputs) != 1 or node.op != "Constant":
            graph.nodes.append(node)
        else:
            graph.add_tensor(self.wire.path, constant, node.outputs[0])

    def node(self, message: Field, depth: int) -> tuple[Node, Tensor | None]:
        inputs: list[str] = []
        outputs: list[str] = []
        texts = {3: "", 4: "", 7: ""}
        numbers: dict[str, tuple[int, ...]] = {}
        graphs: list[Graph] = []
        constant = None
        for one in self.wire.fields(message.begin, message.end):
            if one.number in {1, 2}:
                (inputs if one.number == 1 else outputs).append(self.text(one))
            elif one.number in texts:
                texts[one.number] = self.text(one)
            elif one.number == 5:
                found = self.attribute(self.wire.expect(one, LENGTH), numbers, graphs, depth)
                constant = found or constant
        domain = "" if texts[7] == "ai.onnx" else texts[7]
        return Node(texts[4], domain, texts[3], tuple(inputs), tuple(outputs), numbers, tuple(graphs)), constant

    def attribute(
        self, message: Field, numbers: dict[str, tuple[int, ...]], graphs: list[Graph], depth: int
    ) -> Tensor | None:
        """Keep what matters of an attribute; the tensor, where it is one."""
        once: dict[int, Field] = {}
        listed: list[Field] = []
        for one in self.wire.fields(message.begin, message.end):
            if one.number in {1, 3, 5, 6}:
                if one.number in once:
                    raise unsound(self.wire.path, f"the field {one.number} of an attribute stands in it twice")
                once[one.number] = one
            elif one.number == 8 and len(listed) < _MAX_DIMENSIONS:
                listed.append(one)
        name = self.text(once[1]) if 1 in once else ""
        if name in _LISTED and (name == "sparse_value" or message.end - message.begin > _MAX_LISTED):
            raise unsound(self.wire.path, f"a constant of the kind {name} is too large or not read here")
        if name in _KEPT:
            if name in numbers:
                raise unsound(self.wire.path, f"the attribute {name} stands in a node twice")
            fields = [once[3]] if 3 in once else listed
            numbers[name] = tuple(number for one in fields for number in self.wire.integers(one, _MAX_LISTED))
        elif name in _GRAPHS and 6 in once:
            graphs.append(self.graph(self.wire.expect(once[6], LENGTH), depth + 1))
        elif name in _TENSORS and 5 in once:
            return self.tensors.read(self.wire.expect(once[5], LENGTH))
        return None

    def first(self, message: Field, number: int, read: Callable[[Field], _Value]) -> _Value | None:
        """The first field of a number, read."""
        found = next((one for one in self.wire.fields(message.begin, message.end) if one.number == number), None)
        return read(found) if found is not None else None

    def value(self, message: Field) -> OnnxValue:
        """Name, type and shape of an input or output."""
        name, dtype, shape = "", None, None
        for one in self.wire.fields(message.begin, message.end):
            if one.number == 1:
                name = self.text(one)
            elif one.number == 2:
                tensor = self.first(self.wire.expect(one, LENGTH), 1, lambda found: self.wire.expect(found, LENGTH))
                if tensor is not None:
                    dtype = self.first(tensor, 1, lambda found: self.wire.expect(found, VARINT).value)
                    shape = self.first(tensor, 2, self.shape)
        return OnnxValue(name, dtype, shape)

    def shape(self, message: Field) -> tuple[int | None, ...]:
        sides = []
        for one in self.wire.fields(message.begin, self.wire.expect(message, LENGTH).end):
            if one.number == 1:
                side = self.first(
                    self.wire.expect(one, LENGTH), 1, lambda found: signed(self.wire.expect(found, VARINT).value)
                )
                sides.append(side)
        return tuple(sides[:64])

    def text(self, message: Field) -> str:
        """A text; the same text is kept once."""
        found = self.wire.text(message)
        return self.texts.setdefault(found, found)

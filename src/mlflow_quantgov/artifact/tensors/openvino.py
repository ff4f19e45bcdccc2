"""OpenVINO's IR: a graph in XML and its constants in one file beside it; no payload is read.

Source: https://docs.openvino.ai, "OpenVINO IR format", and the files that openvino 2026.4 writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from xml.parsers import expat

from mlflow_quantgov.artifact.tensors.onnx_scopes import FlatGraph, Node
from mlflow_quantgov.artifact.tensors.onnx_tensor import check_sharing
from mlflow_quantgov.artifact.tensors.types import Tensor, check_name, unsound

MAX_XML_BYTES = 256_000_000
MAX_ELEMENTS = 6_000_000
MAX_LAYERS = 300_000
MAX_DEPTH = 64
_MAX_NAME = 4096
_MAX_NOTES = 2000
_MAX_SIDES = 16
_CHUNK = 1 << 16
# element_type -> our name of the storage type and its width in bits.
ELEMENT_TYPES: dict[str, tuple[str, int]] = {
    "f64": ("F64", 64), "f32": ("F32", 32), "f16": ("F16", 16), "bf16": ("BF16", 16), "f8e4m3": ("F8_E4M3", 8),
    "f8e5m2": ("F8_E5M2", 8), "f8e8m0": ("F8_E8M0", 8), "f4e2m1": ("F4", 4), "nf4": ("NF4", 4), "i64": ("I64", 64),
    "i32": ("I32", 32), "i16": ("I16", 16), "i8": ("I8", 8), "i4": ("I4", 4), "u64": ("U64", 64), "u32": ("U32", 32),
    "u16": ("U16", 16), "u8": ("U8", 8), "u6": ("U6", 6), "u4": ("U4", 4), "u3": ("U3", 3), "u2": ("U2", 2),
    "u1": ("U1", 1), "boolean": ("BOOL", 8), "string": ("STRING", 0),
}  # fmt: skip
WIDTHS = dict(ELEMENT_TYPES.values())
_NUMBERS = frozenset({"levels", "axis"})
_FLAGS = frozenset({"transpose_a", "transpose_b"})


@dataclass(frozen=True)
class OpenVinoFile:
    """What one graph says, without its payloads."""

    path: Path
    weights: Path
    """The file of constants."""
    graph: FlatGraph
    inputs: frozenset[str]
    """Names of the graph's inputs, all that each has."""
    notes: dict[str, str]
    """`rt_info` of the whole model: `nncf/version` and the like."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Constants by the name of their layer."""
        return self.graph.tensors


def read_openvino(path: Path) -> OpenVinoFile:
    """Read and check the graph.

    Args:
        path: The `.xml` file; its constants lie beside it under the same name with `.bin`.

    Raises:
        ArtifactError: Not such XML, with a document type or entities, too large, without its constants, or with
            constants that overlap, leave their file or have another size than their shape.
    """
    weights = path.with_suffix(".bin")
    try:
        size = path.stat().st_size
        if size > MAX_XML_BYTES:
            raise unsound(path, f"it has {size:,} bytes, which no graph has")
        if not weights.is_file() or weights.resolve().parent != path.resolve().parent:
            raise unsound(path, f"its constants are not there: {weights.name}")
        walk = _Walk(path, weights, weights.stat().st_size)
        walk.parse()
    except OSError as error:
        raise unsound(path, error.strerror or str(error)) from error
    except expat.ExpatError as error:
        raise unsound(path, f"it is not XML ({str(error)[:100]})") from error
    graph = walk.finish()
    check_sharing(path, graph.tensors.values(), same_type=False)
    return OpenVinoFile(path, weights, graph, frozenset(walk.inputs), walk.notes)


@dataclass
class _Layer:
    name: str
    op: str
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """Port of the layer -> unique name of the layer that feeds it."""


@dataclass
class _Walk:
    """Collects layers and edges while expat walks over the file."""

    path: Path
    weights: Path
    weights_size: int
    inputs: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)
    layers: dict[str, _Layer] = field(default_factory=dict)
    """Place (its id, behind those of the layers around it) -> layer."""
    names: set[str] = field(default_factory=set)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    elements: int = 0
    trail: list[str] = field(default_factory=list)
    """Names of the elements that are open."""
    ids: list[str] = field(default_factory=list)
    """Of the layers that are open."""

    def parse(self) -> None:
        parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = self.refuse
        parser.ExternalEntityRefHandler = parser.UnparsedEntityDeclHandler = self.refuse
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                parser.Parse(chunk, False)
        parser.Parse(b"", True)

    def refuse(self, *_: object) -> int:
        raise unsound(self.path, "it declares a document type or entities, which no graph does")

    def start(self, tag: str, found: dict[str, str]) -> None:
        self.elements += 1
        if self.elements > MAX_ELEMENTS or len(self.trail) >= MAX_DEPTH:
            raise unsound(self.path, "it has too many elements, or they are nested too deeply")
        if not self.trail and tag != "net":
            raise unsound(self.path, f"it begins with <{tag[:40]}>, not <net>")
        noted = "rt_info" in self.trail
        self.trail.append(tag)
        if noted or tag == "rt_info":
            self.note(found)
        elif tag == "layer":
            self.open_layer(found)
        elif tag == "data" and self.trail[-2] == "layer" and self.ids:
            self.data(found)
        elif tag == "edge" and self.trail[-2] == "edges":
            self.edge(found)
        elif tag == "port" and self.ids and self.layers[self.place()].op == "Parameter":
            self.inputs |= set(found.get("names", "")[:_MAX_NAME].split(",", 64)[:64])

    def end(self, tag: str) -> None:
        self.trail.pop()
        if tag == "layer" and self.ids and "rt_info" not in self.trail:
            self.ids.pop()

    def note(self, found: dict[str, str]) -> None:
        """Keep what the model as a whole says about itself; layers' own notes are passed over."""
        if self.trail[:2] == ["net", "rt_info"] and "value" in found and len(self.notes) < _MAX_NOTES:
            self.notes["/".join(self.trail[2:])[:_MAX_NAME]] = found["value"][:_MAX_NAME]

    def place(self) -> str:
        """Of the layer that is open."""
        return "/".join(self.ids)

    def open_layer(self, found: dict[str, str]) -> None:
        if len(self.layers) >= MAX_LAYERS:
            raise unsound(self.path, f"it has more than {MAX_LAYERS:,} layers")
        name, number = found.get("name", ""), found.get("id", "")
        if self.trail[-2:-1] != ["layers"]:
            raise unsound(self.path, f"a layer {name[:100]!r} stands outside the list of layers")
        if len(name) > _MAX_NAME or _whole(number) is None:
            raise unsound(self.path, f"a layer {name[:100]!r} has no number, or no such name as layers have")
        # Bodies of loops and branches count their layers anew: their place is the way to them.
        self.ids.append(f"{self.trail[-3] if self.ids else ''}{number}")
        place = self.place()
        if place in self.layers:
            raise unsound(self.path, f"the number {number} of a layer stands twice")
        # Only a few layers share a name; those get their place behind it.
        unique = name if name and name not in self.names else f"{name}#{place}"
        self.names.add(unique)
        self.layers[place] = _Layer(unique, found.get("type", "")[:100])
        if self.layers[place].op == "Parameter" and len(self.ids) == 1:
            self.inputs.add(name)

    def data(self, found: dict[str, str]) -> None:
        layer = self.layers[self.place()]
        if layer.op == "Const":
            self.tensors[layer.name] = self.constant(layer.name, found)
            return
        for key in _NUMBERS & found.keys():
            text = found[key].removeprefix("-")
            if text.isascii() and text.isdigit() and len(text) < 10:
                layer.numbers[key] = (int(found[key]),)
        for key in _FLAGS & found.keys():
            layer.numbers[key] = (int(found[key].lower() in {"true", "1"}),)
        kind = ELEMENT_TYPES.get(found.get("destination_type", ""))
        if kind:
            layer.numbers["destination_bits"] = (kind[1],)

    def constant(self, name: str, found: dict[str, str]) -> Tensor:
        """Where a constant lies.

        Raises:
            ArtifactError: Unknown type, impossible shape, or a place that is not in the file.
        """
        # `..` in a name leads nowhere: constants are no files of their own.
        check_name(self.path, name.replace("/", "."))
        kind = found.get("element_type", "")
        if kind not in ELEMENT_TYPES:
            raise unsound(self.path, f"the constant {name[:100]!r} has the unknown type {kind[:30]!r}")
        dtype, width = ELEMENT_TYPES[kind]
        shape = [_whole(one) for one in found.get("shape", "").replace(" ", "").split(",") if one][: _MAX_SIDES + 1]
        offset, size = _whole(found.get("offset", "")), _whole(found.get("size", ""))
        sides = [one for one in shape if one is not None]
        if offset is None or size is None or len(sides) != len(shape) or len(sides) > _MAX_SIDES:
            raise unsound(self.path, f"the constant {name[:100]!r} has an impossible shape or place")
        if dtype != "STRING" and -(-prod(sides) * width // 8) != size:
            raise unsound(self.path, f"the constant {name[:100]!r} has {size:,} bytes, its shape needs another number")
        if offset + size > self.weights_size:
            raise unsound(
                self.path,
                f"the constant {name[:100]!r} ends at byte {offset + size:,} and {self.weights.name} has "
                f"{self.weights_size:,}",
            )
        return Tensor(name, dtype, tuple(sides), self.weights, offset, size)

    def edge(self, found: dict[str, str]) -> None:
        scope = f"{self.place()}/" if self.ids else ""
        inner = self.trail[-3] if self.ids else ""
        begin, end = (f"{scope}{inner}{found.get(key, '')}" for key in ("from-layer", "to-layer"))
        if begin not in self.layers or end not in self.layers:
            raise unsound(self.path, "an edge leads to a layer that is not there")
        self.layers[end].sources[found.get("to-port", "")[:12]] = self.layers[begin].name

    def finish(self) -> FlatGraph:
        """Nodes with their inputs in order."""
        if not self.layers:
            raise unsound(self.path, "it holds no layers")
        nodes = []
        for one in self.layers.values():
            if one.op == "Const":
                continue
            ports = sorted(one.sources, key=lambda port: (len(port), port))
            inputs = tuple(one.sources[port] for port in ports)
            nodes.append(Node(one.op, "", one.name, inputs, (one.name,), one.numbers))
        return FlatGraph(nodes, self.tensors)


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None

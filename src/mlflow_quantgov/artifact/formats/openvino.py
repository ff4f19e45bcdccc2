"""OpenVINO: constants that a small chain of operations turns into floats again.

Source: how nncf writes compressed weights: Const -> Convert -> (Subtract) -> Multiply -> (Reshape) -> (Convert).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import broken_layer
from mlflow_quantgov.artifact.formats.codes import Codes
from mlflow_quantgov.artifact.formats.graph import NARROW, GraphReading, WeightUse, assemble_graph
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.onnx_uses import Uses
from mlflow_quantgov.artifact.graph_structure import weight_name
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.tensors import FLOATS, OpenVinoFile, Tensor
from mlflow_quantgov.artifact.tensors.onnx_scopes import Node
from mlflow_quantgov.artifact.tensors.openvino import WIDTHS

MOVES = frozenset({"Convert", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "FakeConvert"})
"""Operations that move numbers and change none."""
_STEPS = 24
_DEPTH = 8
_MOST_ZEROS = 1 << 24
_MIDDLE = {"U8": 128, "U4": 8, "U2": 2, "U3": 4, "U6": 32}
_NAMED_TYPES = {"NF4": "nf4", "F4": "f4e2m1", "F8_E4M3": "f8e4m3", "F8_E5M2": "f8e5m2"}
_TOKENS = frozenset({"input_ids", "decoder_input_ids", "tokens", "inputs_embeds"})
_FITTED = ("awq", "gptq", "scale_estimation", "lora_correction")
_CACHE_BITS = {"u8": 8, "i8": 8, "u4": 4, "i4": 4, "f8e4m3": 8}


class OpenVino(Format):
    """Reads one graph with its file of constants."""

    name = "openvino"

    def detect(self, files: ArtifactFiles) -> bool:
        """An OpenVINO graph is all there is."""
        return files.openvino is not None

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        file = files.openvino
        assert file is not None
        walk = Walk(files, Uses(file.graph))
        decoder = any(node.op == "ReadValue" for node in file.graph.nodes) or any(
            "past_key_values" in name or name == "beam_idx" for name in file.inputs
        )
        reading = GraphReading(
            file.tensors, [], _producer(file.notes), generative=decoder, token_inputs=bool(_TOKENS & file.inputs)
        )
        for name, tensor in file.tensors.items():
            if tensor.dtype not in NARROW and (tensor.dtype not in FLOATS or len(tensor.shape) < 2):
                continue
            found = walk.uses_of(tensor)
            reading.uses += found
            if not found and tensor.dtype in NARROW:
                takers = [node.op for node, _ in walk.graph.takers.get(name, [])]
                reading.unknown[name] = takers[0] if takers else "no operation"
        parts = {part for one in reading.uses for part in one.parts}
        reading.unknown = {name: op for name, op in reading.unknown.items() if name not in parts}
        _activations(file, walk.graph, reading)
        reading.calibrated = _is_calibrated(file.notes, reading)
        reading.kv_cache_bits = _CACHE_BITS.get(file.notes.get("runtime_options/KV_CACHE_PRECISION", "").lower())
        return assemble_graph(files, self.name, reading)


@dataclass(frozen=True)
class Path:
    """What lies between a constant and the operation that takes it."""

    value: str
    scale: Tensor | None = None
    zero: Tensor | None = None
    reshaped: bool = False
    swapped: bool = False
    levels: int = 0
    nested: bool = False
    """Whether the scales are codes with a scale of their own (NVFP4)."""


@dataclass(frozen=True)
class Walk:
    """Follows constants to the operations that take them."""

    files: ArtifactFiles
    graph: Uses
    codes: Codes = field(default_factory=Codes)

    def uses_of(self, tensor: Tensor) -> list[WeightUse]:
        """Matrices that a constant is.

        Raises:
            ArtifactError: Codes and scales do not fit each other.
        """
        found = [self.weight(tensor, *way) for way in self.ways(tensor)]
        # Codes that nothing scales are not understood.
        return [one for one in found if one.bits is not None or tensor.dtype in FLOATS]

    def ways(self, tensor: Tensor) -> list[tuple[Path, Node, int, str]]:
        """Where a constant is a weight, behind what only moves or dequantizes it: way, operation, place and kind."""
        found: list[tuple[Path, Node, int, str]] = []
        left = [Path(tensor.name)]
        for _ in range(_STEPS):
            if not left or len(found) >= _STEPS:
                break
            path = left.pop(0)
            for node, place in self.graph.takers.get(path.value, [])[:_STEPS]:
                following = self._follow(tensor, path, node, place)
                if following is not None:
                    left.append(following)
                elif (kind := _kind(node, place)) is not None:
                    found.append((path, node, place, kind))
        return found

    def _follow(self, tensor: Tensor, path: Path, node: Node, place: int) -> Path | None:
        """One step on; None where the way ends."""
        value = node.outputs[0]
        if node.op in MOVES and place == 0:
            turned = path.swapped != (node.op == "Transpose")
            return replace(path, value=value, reshaped=path.reshaped or node.op == "Reshape", swapped=turned)
        if node.op == "FakeQuantize" and place == 0:
            return replace(path, value=value, levels=node.number("levels", 256))
        # E8M0 holds powers of two: scales, and never codes.
        if tensor.dtype in {*FLOATS, "F8_E8M0"} or node.op not in {"Subtract", "Multiply"}:
            return None
        other = self._stored(node.input(1 - place))
        if other is None or (node.op == "Subtract" and place == 1):
            return None
        if node.op == "Subtract":
            return replace(path, value=value, zero=path.zero or other)
        if other.dtype in NARROW and other.elements > tensor.elements:
            return None  # this constant is itself the scale of other codes
        nested = path.nested or (other.dtype in NARROW and self._is_scaled(node.input(1 - place)))
        return replace(path, value=value, scale=path.scale or other, nested=nested)

    def _stored(self, value: str) -> Tensor | None:
        """The constant that a value is, looked for before what only moves or scales it."""
        for _ in range(_DEPTH):
            if value in self.graph.graph.tensors:
                return self.graph.graph.tensors[value]
            maker = self.graph.makers.get(value)
            if maker is None or maker.op not in MOVES | {"Multiply", "Subtract"}:
                return None
            value = maker.input(0)
        return None

    def _is_scaled(self, value: str) -> bool:
        """Whether the constant that a value is gets multiplied on the way."""
        for _ in range(_DEPTH):
            maker = self.graph.makers.get(value)
            if maker is None or maker.op == "Multiply":
                return maker is not None
            value = maker.input(0)
        return False

    def weight(self, tensor: Tensor, path: Path, node: Node, place: int, kind: str) -> WeightUse:
        """Facts of a constant that is a weight.

        Raises:
            ArtifactError: Codes and scales do not fit each other.
        """
        name = weight_name(tensor.name, node.name)
        if tensor.dtype in FLOATS:
            shape = _logical(tensor.shape, path, node, place)
            if not path.levels:
                return WeightUse(tensor, name, shape, kind)
            return WeightUse(tensor, name, shape, kind, (path.levels - 1).bit_length(), None, "channel", None)
        if path.scale is None:
            return WeightUse(tensor, name, tensor.shape, kind)
        shape, granularity, group = self._grouping(tensor, path, node, place)
        symmetric = None if tensor.dtype == "NF4" else self._is_symmetric(path.zero, tensor.dtype)
        parts = tuple(one.name for one in (path.scale, path.zero) if one is not None)
        bits = self.codes.bits(tensor, WIDTHS[tensor.dtype])
        return WeightUse(
            tensor, name, shape, kind, bits, group, granularity, symmetric, _NAMED_TYPES.get(tensor.dtype), parts
        )

    def _grouping(self, tensor: Tensor, path: Path, node: Node, place: int) -> tuple[tuple[int, ...], str, int | None]:
        """Logical shape, granularity and group size, from the shapes of codes and scales.

        Raises:
            ArtifactError: The scales have another shape than the codes allow.
        """
        assert path.scale is not None
        codes, scale = tensor.shape, path.scale.shape
        # Sides in which a scale is shared.
        aligned = (1,) * (len(codes) - len(scale)) + scale
        if len(scale) > len(codes) or any(one not in {1, side} for one, side in zip(aligned, codes, strict=True)):
            raise broken_layer(self.files, tensor.name, "OpenVINO")
        shared = [place for place, (one, side) in enumerate(zip(aligned, codes, strict=True)) if one < side]
        if path.reshaped and len(codes) >= 3 and shared and shared[-1] >= 1:
            at = shared[-1]
            joined = (*codes[: at - 1], codes[at - 1] * codes[at], *codes[at + 1 :])
            group = codes[at] if codes[at - 1] > 1 else None
            return _logical(joined, path, node, place), "group" if group else "channel", group
        shape = _logical(codes, path, node, place)
        return shape, "tensor" if prod(scale) == 1 and prod(codes) > 1 else "channel", None

    def _is_symmetric(self, zero: Tensor | None, codes: str) -> bool:
        middle = 0 if codes.startswith("F") else _MIDDLE.get(codes, 0)
        if zero is None:
            return middle == 0 or codes.startswith("F")
        if zero.dtype in FLOATS:
            return zero.elements <= _MOST_ZEROS and bool(np.all(zero.values() == middle))
        return self.codes.are_all(zero, middle)


def _kind(node: Node, place: int) -> str | None:
    """What an operation takes a constant for; None for what is no weight."""
    if node.op == "Gather" and place == 0:
        return "embedding"
    if node.op == "MatMul":
        return "matrix"
    return "other" if node.op in {"Convolution", "GroupConvolution", "ConvolutionBackpropData"} and place == 1 else None


def is_turned(path: Path, node: Node, place: int) -> bool:
    """Whether a weight is stored as [in, out]."""
    flag = node.number("transpose_b" if place else "transpose_a", 0)
    own = node.op == "MatMul" and bool(place) != bool(flag)
    return own != path.swapped


def _logical(shape: tuple[int, ...], path: Path, node: Node, place: int) -> tuple[int, ...]:
    """[out, in] of a weight that is stored in this shape."""
    return (*shape[:-2], shape[-1], shape[-2]) if is_turned(path, node, place) and len(shape) >= 2 else shape


def _activations(file: OpenVinoFile, graph: Uses, reading: GraphReading) -> None:
    """Width of activations, rounded within ranges that stand in the file."""
    widths: dict[int, int] = {}
    for node in file.graph.nodes:
        if node.op not in {"FakeQuantize", "FakeConvert"} or _is_constant(graph, node.input(0)):
            continue
        bits = (
            (node.number("levels", 256) - 1).bit_length()
            if node.op == "FakeQuantize"
            else node.number("destination_bits", 8)
        )
        widths[bits] = widths.get(bits, 0) + 1
    if widths:
        reading.activation_bits = min(widths, key=lambda bits: (-widths[bits], bits))
        reading.static = True


def _is_constant(graph: Uses, value: str) -> bool:
    for _ in range(_DEPTH):
        if value in graph.graph.tensors:
            return True
        maker = graph.makers.get(value)
        if maker is None or maker.op not in MOVES:
            return False
        value = maker.input(0)
    return False


def _is_calibrated(notes: dict[str, str], reading: GraphReading) -> bool | None:
    """As nncf notes it in the file; None for few bits without its note."""
    noted = {
        key.rpartition("/")[2]: value for key, value in notes.items() if key.startswith("nncf/weight_compression/")
    }
    if any(noted.get(key, "").lower() == "true" for key in _FITTED):
        return True
    few = any(one.bits is not None and one.bits < 8 and one.type != "nf4" for one in reading.uses)
    return None if few and not noted else False


def _producer(notes: dict[str, str]) -> str | None:
    for key, name in (
        ("nncf/version", "nncf"), ("optimum/optimum_intel_version", "optimum-intel"), ("Runtime_version", "openvino"),
    ):  # fmt: skip
        if notes.get(key):
            return f"{name} {notes[key]}"[:200]
    return None

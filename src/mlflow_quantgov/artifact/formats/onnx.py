"""ONNX: a graph whose operations say how the stored weights are quantized."""

from __future__ import annotations

import re

from mlflow_quantgov.artifact.formats.graph import NARROW, GraphReading, WeightUse, assemble_graph
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.onnx_layers import LayerReader
from mlflow_quantgov.artifact.formats.onnx_uses import QUANTIZE, Terminal, Uses
from mlflow_quantgov.artifact.formats.unread import unread
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.tensors import FLOATS, OnnxFile, Tensor
from mlflow_quantgov.artifact.tensors.onnx_tensor import BITS, DATA_TYPES

_CACHE = re.compile(r"past_key|past_value|past_key_values|past\.\d|kv_cache|cache_params")
_TOKENS = frozenset({"input_ids", "decoder_input_ids", "tokens", "token_ids", "inputs_embeds"})
_DECODERS = frozenset({"GroupQueryAttention", "PagedAttention", "SparseAttention", "DecoderMaskedMultiHeadAttention"})
# Activations as they come: operations that measure them anew each time.
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
_STATIC = frozenset({"QLinearMatMul", "QLinearConv", "QGemm", "QAttention"})
_COMPILED = frozenset({"EPContext", "TRTKernel", "TRT_PluginV2"})
# Integers wider than a byte that are computed with, rather than counted or picked by, may be packed codes.
_UNPACKING = frozenset({"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitCast", "Cast", "Mod"})
_WIDE = frozenset({"I16", "I32", "I64", "U16", "U32", "U64"})
_ROUNDED = "rounded-when-loaded"


class Onnx(Format):
    """Reads one graph, with the files beside it that hold its tensors."""

    name = "onnx"

    def detect(self, files: ArtifactFiles) -> bool:
        """An ONNX file is all there is."""
        return files.onnx is not None

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        file = files.onnx
        assert file is not None
        compiled = next((node.op for node in file.graph.nodes if node.op in _COMPILED), None)
        if compiled:
            raise unread(files, f"onnx, compiled for one device ({compiled}),")
        uses = Uses(file.graph)
        reading = GraphReading(
            file.tensors, [], file.producer, generative=_is_decoder(file), token_inputs=_has_tokens(file)
        )
        _collect(files, uses, reading)
        _activations(file, uses, reading)
        reading.calibrated = _is_calibrated(file, reading)
        reading.heads = _heads(file)
        reading.kv_cache_bits = _cache_bits(file)
        reading.warnings = _warnings(file, reading)
        return assemble_graph(files, self.name, reading)


def _collect(files: ArtifactFiles, uses: Uses, reading: GraphReading) -> None:
    """Every weight of the graph, and every narrow tensor that is not understood."""
    reader = LayerReader(files, uses)
    for name, tensor in uses.graph.tensors.items():
        weighty = tensor.dtype in NARROW or (tensor.dtype in {*FLOATS, "I16", "U16"} and len(tensor.shape) >= 2)
        if not weighty and tensor.dtype not in _WIDE:
            continue
        terminals = uses.terminals(name)
        found = [one for terminal in terminals if (one := reader.read(tensor, terminal)) is not None]
        reading.uses += found
        if not found:
            reading.unknown |= _unknown(name, tensor, uses, terminals)
    parts = {part for one in reading.uses for part in one.parts}
    reading.unknown = {name: op for name, op in reading.unknown.items() if name not in parts}


def _unknown(name: str, tensor: Tensor, uses: Uses, terminals: list[Terminal]) -> dict[str, str]:
    """A tensor that may be codes and is used in no known way; empty for what is plainly no weight."""
    takers = [node for node, _ in uses.takers.get(name, [])]
    if tensor.dtype in NARROW:
        return {name: next((one.node.op for one in terminals), "no operation")}
    unpacked = next((node.op for node in takers if node.op in _UNPACKING), None)
    return {name: unpacked} if unpacked and len(tensor.shape) >= 2 and tensor.dtype in _WIDE else {}


def _activations(file: OnnxFile, uses: Uses, reading: GraphReading) -> None:
    """Width of activations, and whether their scales stand in the file."""
    widths: dict[int, int] = {}
    for node in file.graph.nodes:
        if node.op in _DYNAMIC or node.op in _STATIC:
            widths[8] = widths.get(8, 0) + 1
            reading.static = reading.static or (node.op in _STATIC and uses.stored(node.input(1)) is not None)
        elif node.op in QUANTIZE and uses.stored(node.input(0)) is None:
            bits = _width(node.input(2), node.number("output_dtype", 0), uses)
            widths[bits] = widths.get(bits, 0) + 1
            reading.static = reading.static or uses.stored(node.input(1)) is not None
    if widths:
        reading.activation_bits = min(widths, key=lambda bits: (-widths[bits], bits))


def _width(zero: str, output: int, uses: Uses) -> int:
    """Bits that a QuantizeLinear rounds to: those of its zero point, else of the type it names, else 8."""
    stored = uses.stored(zero)
    name = stored.dtype if stored is not None else DATA_TYPES.get(output, ("U8", 8))[0]
    return BITS.get(name, 8) or 8


def _is_calibrated(file: OnnxFile, reading: GraphReading) -> bool | None:
    """True for act-order; None for integers of few bits, which GPTQ, AWQ and plain rounding store alike."""
    ordered = any(node.op == "MatMulNBits" and node.input(4) in file.tensors for node in file.graph.nodes)
    blocks = any(node.op == "MatMulNBits" for node in file.graph.nodes)
    if blocks:
        reading.desc_act = ordered
    few = any(one.bits is not None and one.bits < 8 and one.type is None for one in reading.uses)
    return True if ordered else None if blocks or few else False


def _is_decoder(file: OnnxFile) -> bool:
    return any(_CACHE.search(one.name) for one in file.inputs) or any(node.op in _DECODERS for node in file.graph.nodes)


def _has_tokens(file: OnnxFile) -> bool:
    return any(one.name in _TOKENS for one in file.inputs)


def _heads(file: OnnxFile) -> tuple[int, int] | None:
    for node in file.graph.nodes:
        if node.op in _DECODERS and node.number("num_heads", 0) > 0:
            return node.number("num_heads", 0), node.number("kv_num_heads", 0) or node.number("num_heads", 0)
    return None


def _cache_bits(file: OnnxFile) -> int | None:
    """Width of cached keys and values, where they are narrower than activations."""
    stated = [node.number("kv_cache_bit_width", 0) for node in file.graph.nodes if node.op in _DECODERS]
    if any(stated):
        return max(stated)
    types = [DATA_TYPES.get(one.dtype or 0, ("", 0)) for one in file.inputs if _CACHE.search(one.name)]
    narrow = [bits for name, bits in types if name in NARROW]
    return min(narrow) if narrow else None


def _warnings(file: OnnxFile, reading: GraphReading) -> tuple[str, ...]:
    found: list[str] = []
    floats = sum(_is_rounded(one) for one in reading.uses)
    if floats:
        found.append(f"{_ROUNDED}: {floats} matrices are stored as floats and rounded whenever the model is loaded")
    if any(node.op == "MatMulNBits" and node.number("accuracy_level", 0) == 4 for node in file.graph.nodes):
        found.append("activations-may-be-rounded: MatMulNBits allows its kernels to compute with 8-bit activations")
    known = {"", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc", "ai.onnx.training", "trt"}
    foreign = sorted({node.domain for node in file.graph.nodes} - known)
    if foreign:
        found.append(f"foreign-operations: what those of {', '.join(foreign)[:200]} compute cannot be told")
    return tuple(found)


def _is_rounded(one: WeightUse) -> bool:
    return one.bits is not None and one.tensor.dtype in FLOATS

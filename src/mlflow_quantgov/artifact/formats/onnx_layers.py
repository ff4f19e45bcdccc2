"""Quantized matrices of an ONNX graph: width, group, symmetry, from the operation that takes them and their own bytes.

Sources: ONNX's operators DequantizeLinear, QLinearMatMul, MatMulInteger; docs/ContribOperators.md of onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from mlflow_quantgov.artifact.formats.assemble import broken_layer
from mlflow_quantgov.artifact.formats.codes import Codes, all_middle
from mlflow_quantgov.artifact.formats.graph import BUFFER, NARROW, WeightUse
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.onnx_uses import FEW, Terminal, Uses
from mlflow_quantgov.artifact.graph_structure import weight_name
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor
from mlflow_quantgov.artifact.tensors.onnx_tensor import BITS

# Integers of two bytes are quantized weights only where a DequantizeLinear takes them.
_CODES = NARROW | {"I16", "U16"}
_MIDDLE = {"U8": 128, "U4": 8, "U2": 2}
# Operation -> (place of the weight, of its scale, of its zero point); -1 where the scale follows behind.
OPERATORS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "QLinearMatMul": ((3, 4, 5),),
    "QLinearConv": ((3, 4, 5),),
    "QGemm": ((3, 4, 5),),
    "MatMulInteger": ((1, -1, 3),),
    "MatMulInteger16": ((1, -1, 3),),
    "ConvInteger": ((1, -1, 3),),
    "MatMulIntegerToFloat": ((1, 3, 5),),
    "DynamicQuantizeMatMul": ((1, 2, 3),),
    "QAttention": ((1, 4, 7),),
    "DynamicQuantizeLSTM": ((1, 8, 9), (2, 10, 11)),
    "QEmbedLayerNormalization": ((2, 8, 13),),
}
_BNB_TYPES = {0: "fp4", 1: "nf4"}
_PACKED = {"U8": 8, "U4": 4, "I4": 4, "U2": 2, "I2": 2, "I8": 8}


@dataclass(frozen=True)
class LayerReader:
    """Reads the quantized matrices of one graph."""

    files: ArtifactFiles
    uses: Uses
    codes: Codes = field(default_factory=Codes)

    def read(self, tensor: Tensor, terminal: Terminal) -> WeightUse | None:
        """What a use makes of a stored tensor; None where codes are used in a way that is not known here.

        Raises:
            ArtifactError: Codes, scales and zero points do not fit each other.
        """
        op, place = terminal.node.op, terminal.place
        if op == "MatMulNBits" and place == 1:
            return self._nbits(tensor, terminal)
        if op == "GatherBlockQuantized" and place == 0:
            return self._gathered(tensor, terminal)
        if op == "MatMulBnb4" and place == 1:
            return self._bnb(tensor, terminal)
        if op == "QMoE" and tensor.dtype in NARROW:
            return self._experts(tensor, terminal)
        if tensor.dtype in NARROW:
            for weight, scale, zero in OPERATORS.get(op, ()):
                if place == weight:
                    return self._integers(tensor, terminal, scale, zero)
        if terminal.dequantize is not None and tensor.dtype in _CODES | FLOATS.keys():
            return self._dequantized(tensor, terminal)
        return self._plain(tensor, terminal) if tensor.dtype in FLOATS else None

    def _plain(self, tensor: Tensor, terminal: Terminal) -> WeightUse | None:
        """Floats that are multiplied with, or picked from; no biases, scales or tables of positions."""
        name = self._name(tensor, terminal)
        if not terminal.takes_floats or BUFFER.search(name or tensor.name):
            return None
        return WeightUse(tensor, name, terminal.logical(tensor.shape), terminal.kind)

    def _dequantized(self, tensor: Tensor, terminal: Terminal) -> WeightUse | None:
        """Codes behind a DequantizeLinear; floats that a QuantizeLinear rounds whenever the model is loaded."""
        node = terminal.dequantize
        assert node is not None
        scale, zero = self.uses.stored(node.input(1)), self.uses.stored(node.input(2))
        if tensor.dtype in FLOATS:
            codes = zero.dtype if zero is not None else "U8"
            if terminal.quantize is None or codes not in _CODES:
                return self._plain(tensor, terminal)
            bits: float = BITS[codes]
        else:
            codes, bits = tensor.dtype, self.codes.bits(tensor, BITS[tensor.dtype])
        if scale is None:
            raise broken_layer(self.files, tensor.name, "ONNX")
        block = node.number("block_size", 0)
        granularity, group = self._granularity(tensor, scale, node.number("axis", 1), block)
        return WeightUse(
            tensor, self._name(tensor, terminal), terminal.logical(tensor.shape), terminal.kind, bits, group, granularity,
            self._symmetric(zero, codes), codes if codes.startswith("F") else None, _names(scale, zero),
        )  # fmt: skip

    def _integers(self, tensor: Tensor, terminal: Terminal, scale_at: int, zero_at: int) -> WeightUse:
        """Codes that an operation multiplies as integers."""
        node = terminal.node
        zero = self.uses.stored(node.input(zero_at))
        scale = self.uses.stored(node.input(scale_at)) if scale_at >= 0 else self.scale_behind(terminal)
        for one in (scale, zero):
            if one is not None and one.elements not in {1, *tensor.shape, prod(tensor.shape[:-1])}:
                raise broken_layer(self.files, tensor.name, "ONNX")
        wide = max((one.elements for one in (scale, zero) if one is not None), default=1)
        return WeightUse(
            tensor, self._name(tensor, terminal), terminal.logical(tensor.shape), terminal.kind,
            self.codes.bits(tensor, BITS[tensor.dtype]), None, "channel" if wide > 1 else "tensor",
            self._symmetric(zero, tensor.dtype), None, _names(scale, zero),
        )  # fmt: skip

    def scale_behind(self, terminal: Terminal) -> Tensor | None:
        """The weight's scale, which is multiplied with that of the activations and then with the product."""
        value = terminal.node.outputs[0] if terminal.node.outputs else ""
        for _ in range(3):
            takers = self.uses.takers.get(value, [])[:FEW]
            for node, place in takers:
                if node.op == "Mul":
                    other = node.input(1 - place)
                    direct, made = self.uses.stored(other), self.uses.origin(other)
                    inner = [self.uses.stored(one) for one in made.inputs] if made and made.op == "Mul" else []
                    return direct or next((one for one in inner if one is not None), None)
            following = [node for node, _ in takers if node.op == "Cast" and node.outputs]
            value = following[0].outputs[0] if following else ""
        return None

    def _nbits(self, tensor: Tensor, terminal: Terminal) -> WeightUse:
        """MatMulNBits: [N, blocks, bytes of a block], scales and zero points per block."""
        node = terminal.node
        bits, block = node.number("bits", 4), node.number("block_size", 0)
        rows, columns = node.number("N", 0), node.number("K", 0)
        scale, zero = self.uses.stored(node.input(2)), self.uses.stored(node.input(3))
        if not (bits in {1, 2, 3, 4, 5, 6, 7, 8} and block > 0 and rows > 0 and columns > 0) or scale is None:
            raise broken_layer(self.files, tensor.name, "MatMulNBits")
        blocks = -(-columns // block)
        packed = rows * -(-blocks * bits // 8)
        known = zero is None or zero.elements == (rows * blocks if zero.dtype in FLOATS else packed)
        if tensor.size != rows * blocks * -(-block * bits // 8) or scale.elements != rows * blocks or not known:
            raise broken_layer(self.files, tensor.name, "MatMulNBits")
        symmetric = zero is None or (zero.dtype == "U8" and all_middle(zero, bits, blocks))
        order = self.uses.stored(node.input(4))
        group = block if block <= columns else None
        return WeightUse(
            tensor, self._name(tensor, terminal), (rows, columns), "matrix", bits, group,
            "group" if group else "channel", symmetric, None, _names(scale, zero, order),
        )  # fmt: skip

    def _gathered(self, tensor: Tensor, terminal: Terminal) -> WeightUse:
        """GatherBlockQuantized: an embedding in blocks; narrow codes may be packed into bytes."""
        node = terminal.node
        packed = _PACKED.get(tensor.dtype, 0)
        bits, block = node.number("bits", 4 if packed == 8 else packed), node.number("block_size", 128)
        scale, zero = self.uses.stored(node.input(2)), self.uses.stored(node.input(3))
        if not packed or bits not in {2, 4, 8} or bits > packed or block < 1 or scale is None or not tensor.shape:
            raise broken_layer(self.files, tensor.name, "GatherBlockQuantized")
        rows = tensor.shape[0]
        columns = tensor.elements * packed // bits // rows if rows else 0
        blocks = -(-columns // block)
        if scale.elements != rows * blocks or columns < 1:
            raise broken_layer(self.files, tensor.name, "GatherBlockQuantized")
        if zero is None:
            symmetric = True
        else:
            middle = zero.dtype == "U8" and all_middle(zero, bits, blocks)
            symmetric = middle if packed == 8 else self._symmetric(zero, tensor.dtype) is True
        group = block if block <= columns else None
        return WeightUse(
            tensor, self._name(tensor, terminal), (rows, columns), "embedding", bits, group,
            "group" if group else "channel", symmetric, None, _names(scale, zero),
        )  # fmt: skip

    def _bnb(self, tensor: Tensor, terminal: Terminal) -> WeightUse:
        """MatMulBnb4: codes of bitsandbytes in a row, one largest value per block."""
        node = terminal.node
        rows, columns, block = node.number("N", 0), node.number("K", 0), node.number("block_size", 0)
        scale = self.uses.stored(node.input(2))
        if not (rows > 0 and columns > 0 and block > 0) or scale is None:
            raise broken_layer(self.files, tensor.name, "MatMulBnb4")
        if tensor.size != -(-rows * columns // 2) or scale.elements != -(-rows * columns // block):
            raise broken_layer(self.files, tensor.name, "MatMulBnb4")
        kind = _BNB_TYPES.get(node.number("quant_type", 1))
        return WeightUse(
            tensor,
            self._name(tensor, terminal),
            (rows, columns),
            "matrix",
            4,
            block,
            "group",
            None,
            kind,
            _names(scale),
        )

    def _experts(self, tensor: Tensor, terminal: Terminal) -> WeightUse | None:
        """QMoE: a stack of experts; the scales stand right behind the codes."""
        node = terminal.node
        bits, block = node.number("expert_weight_bits", 4), node.number("block_size", 0)
        scale = self.uses.stored(node.input(terminal.place + 1))
        if bits not in {2, 4, 8} or scale is None or len(tensor.shape) != 3 or terminal.place not in {2, 5, 8}:
            return None
        shape = (*tensor.shape[:-1], tensor.shape[-1] * BITS[tensor.dtype] // bits)
        group = block if 0 < block < shape[-1] else None
        if scale.elements != shape[0] * shape[1] * (-(-shape[2] // group) if group else 1):
            raise broken_layer(self.files, tensor.name, "QMoE")
        return WeightUse(
            tensor, self._name(tensor, terminal), shape, "other", bits, group, "group" if group else "channel", None,
            None, _names(scale),
        )  # fmt: skip

    def _granularity(self, tensor: Tensor, scale: Tensor, axis: int, block: int) -> tuple[str, int | None]:
        """How many weights share a scale.

        Raises:
            ArtifactError: The scales have another shape than the matrix needs.
        """
        rank = len(tensor.shape)
        axis += rank if axis < 0 else 0
        if block > 0:
            wanted = [-(-side // block) if place == axis else side for place, side in enumerate(tensor.shape)]
            if list(scale.shape) != wanted:
                raise broken_layer(self.files, tensor.name, "ONNX")
            return ("group", block) if block < tensor.shape[axis] else ("channel", None)
        if scale.elements == 1:
            return "tensor", None
        # Behind a Gather or a Transpose the axis counts other sides than those of the stored matrix.
        if len(scale.shape) != 1 or scale.elements not in tensor.shape:
            raise broken_layer(self.files, tensor.name, "ONNX")
        return "channel", None

    def _symmetric(self, zero: Tensor | None, codes: str) -> bool | None:
        if codes.startswith("F"):
            return True
        middle = _MIDDLE.get(codes, 0)
        if zero is None:
            return middle == 0
        return self.codes.are_all(zero, middle)

    def _name(self, tensor: Tensor, terminal: Terminal) -> str | None:
        return weight_name(tensor.name, terminal.node.name)


def _names(*tensors: Tensor | None) -> tuple[str, ...]:
    return tuple(one.name for one in tensors if one is not None)

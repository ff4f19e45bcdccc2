"""torchao, as transformers writes it: the parts of a tensor subclass as tensors, its kind in the header's metadata.

Source: torchao/prototype/safetensors and the `tensor_data_names` of torchao's tensor subclasses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from mlflow_quantgov.artifact.files import parse_json
from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble, broken_layer, tells_width, used_bits
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.torchao_config import check_kinds, claimed_groups, method_of, spelled
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.errors import ArtifactError

_DATA = re.compile(r"^(?P<module>.*)\._(?P<parameter>[A-Za-z0-9_]+?)_qdata$")
_WEIGHT_WIDTH = re.compile(r"(?:Int|Float)(\d+)Weight")
_NARROW = re.compile(r"u?int(\d)")
_MAX_METADATA = 100_000


@dataclass(frozen=True)
class Subclass:
    """One quantized parameter, as the metadata describes it."""

    stem: str
    """Module, without `.weight`; with the parameter's name where that is another."""
    kind: str
    """Class name of the tensor subclass."""
    data: dict[str, Any]
    parts: dict[str, Tensor]
    """`qdata`, `scale`, `zero_point`, ..."""


class TorchAo(Format):
    """Reads width, shape and block size of each subclass; int8 storage is looked into for the width really used."""

    name = "torchao"

    def detect(self, files: ArtifactFiles) -> bool:
        """Flattened subclass data."""
        return any(_DATA.match(name) for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers, found = Layers(), subclasses(files)
        for one in found:
            layer, granularity = _layer(files, one)
            layers.add(layer, sorted(tensor.name for tensor in one.parts.values()), granularity)
        method = method_of(files.quantization_config)
        widths = {layer.bits for layer in layers.found}
        claimed = _claimed_width(method)
        if claimed and claimed not in widths:
            raise files.contradiction("config.json", f"{claimed:g} bit ({method})", spelled(widths))
        activations = [bits for one in found if (bits := _activation_bits(one))]
        kinds, dtypes = {one.kind for one in found}, {one.parts["qdata"].dtype for one in found}
        check_kinds(files, kinds, dtypes, widths, bool(activations))
        return assemble(
            files,
            layers,
            format=self.name,
            method=method,
            symmetric=not any(_has_offset(one.parts.get("zero_point")) for one in found),
            producer=None,
            # Weight-only and dynamic rounding need no data; static activation scales and smoothing do.
            calibration_required=any(name.startswith("act_") for one in found for name in one.parts),
            activation_bits=next(iter(activations), None),
            claims=Claims(group_size=claimed_groups(files.quantization_config)),
        )


def subclasses(files: ArtifactFiles) -> list[Subclass]:
    """Every quantized parameter with its parts."""
    found = _by_name(files)
    if all(one.kind for one in found):
        return found
    # transformers renames the tensors of some models when it saves them, and not what the header calls them.
    known = {one.stem for one in found if one.kind}
    left = {text for name, text in files.metadata.items() if name.removesuffix(".weight") not in known}
    kinds = [kind for text in sorted(left) if (kind := _described(text))[0] in _READERS]
    return [one if one.kind else _of_only_kind(one, kinds) for one in found]


def _by_name(files: ArtifactFiles) -> list[Subclass]:
    """Quantized parameters with what the header says under the names of their tensors, if anything."""
    prefixes = {}
    for name in sorted(files.tensors):
        if found := _DATA.match(name):
            parameter = found["parameter"]
            stem = found["module"] if parameter == "weight" else f"{found['module']}.{parameter}"
            kind, data = _described(files.metadata.get(f"{found['module']}.{parameter}", ""))
            prefixes[name.removesuffix("qdata")] = Subclass(stem, kind, data, {})
    for name, tensor in files.tensors.items():
        for part in ("qdata", "scale", "zero_point", "scale_and_zero", "per_tensor_scale", "act_pre_scale",
                     "act_quant_scale", "act_quant_zero_point", "act_per_tensor_scale"):  # fmt: skip
            if name.endswith(f"_{part}") and (owner := prefixes.get(name.removesuffix(part))):
                owner.parts[part] = tensor
    return list(prefixes.values())


def _of_only_kind(one: Subclass, kinds: list[tuple[str, dict[str, Any]]]) -> Subclass:
    """A parameter that the header does not name, as the only one of its descriptions whose blocks fit the scales."""
    fitting = [replace(one, kind=kind, data=data) for kind, data in kinds]
    fitting = [found for found in fitting if _is_sound(found)]
    return fitting[0] if len(fitting) == 1 else one


def _is_sound(one: Subclass) -> bool:
    _, shape = _READERS[one.kind](one, one.parts["qdata"])
    sides = _block_sides(one, shape)
    return sides is not None and _parts_fit(one, shape, sides)


def _parts_fit(one: Subclass, shape: tuple[int, ...], sides: list[int]) -> bool:
    """Whether nothing is missing, and there is a scale for each block of the matrix."""
    if any(part not in one.parts for part in _NEEDED.get(one.kind, ("scale",))):
        return False
    blocks = [-(-whole // side) for whole, side in zip(shape, sides, strict=True)]
    if one.data.get("is_swizzled_scales") is True:
        # Tiles of 128 rows and 4 blocks are filled up.
        blocks = [prod(blocks[:-2]), -(-blocks[-2] // 128) * 128, -(-blocks[-1] // 4) * 4]
    scale = one.parts.get("scale")
    within = all(side <= whole for whole, side in zip(shape, sides, strict=True))
    return scale is None or (within and scale.elements == prod(blocks))


def _described(text: str) -> tuple[str, dict[str, Any]]:
    """Class name and attributes from the header's metadata; empty where they cannot be read."""
    try:
        found = parse_json(text.encode()[:_MAX_METADATA])
        return str(found.get("_type", "")), dict(found.get("_data") or {})
    except (ValueError, AttributeError, TypeError):
        return "", {}


def _layer(files: ArtifactFiles, one: Subclass) -> tuple[LayerQuantization, str]:
    reader = _READERS.get(one.kind)
    if reader is None:
        raise ArtifactError(
            f"The layer {one.stem[:200]} of {files.root.name} is of {_spelled_kind(one)}.",
            why="Its width cannot be read from its bytes.",
            fix="quantize it as int8, int4 or intx weight-only, int8 dynamic, float8, MX or NVFP4",
        )
    bits, shape = reader(one, one.parts["qdata"])
    if len(shape) < 2 or bits is None or not prod(shape):
        raise broken_layer(files, one.stem, "torchao")
    sides = _block_sides(one, shape)
    if sides is None or not _parts_fit(one, shape, sides):
        raise broken_layer(files, one.stem, "torchao")
    if sides[-1] < shape[-1]:
        size, granularity = int(sides[-1]), "group"
    else:
        size, granularity = None, "channel" if prod(sides[:-1]) == 1 else "tensor"
    if granularity == "tensor" and one.parts["qdata"].dtype == "I8":
        bits = used_bits(one.parts["qdata"], rows=shape[0])
    named = one.data.get("target_dtype")
    claimed = _NARROW.fullmatch(str(named.get("_data"))) if isinstance(named, dict) else None
    if claimed and not tells_width(one.parts["qdata"]):
        bits = int(claimed[1])
    if claimed and int(claimed[1]) != bits:
        raise files.contradiction(f"The header of {one.stem}", f"{claimed[1]} bit", f"{bits:g} bit")
    rows = prod(sides[:-1]) if granularity == "group" else 1
    return LayerQuantization(one.stem, bits, size, shape, one.kind, rows), granularity


def _block_sides(one: Subclass, shape: tuple[int, ...]) -> list[int] | None:
    """Sides of the blocks that share a scale; MX and NVFP4 give one number, that of weights along the input."""
    block = one.data.get("block_size")
    sides = [1] * (len(shape) - 1) + [block] if isinstance(block, int) else block
    if not isinstance(sides, list) or len(sides) != len(shape):
        return None
    return sides if all(type(side) is int and side > 0 for side in sides) else None


def _plain_bytes(one: Subclass, data: Tensor) -> tuple[float | None, tuple[int, ...]]:
    """One code per byte; narrower codes than 8 bit are kept this way too."""
    return (used_bits(data) if data.dtype == "I8" else None), data.shape


def _float8(one: Subclass, data: Tensor) -> tuple[float | None, tuple[int, ...]]:
    return (8 if data.dtype.startswith("F8_") else None), data.shape


def _two_per_byte(one: Subclass, data: Tensor) -> tuple[float | None, tuple[int, ...]]:
    return (4 if data.dtype in {"U8", "I8"} else None), (*data.shape[:-1], data.shape[-1] * 2)


def _eight_per_word(one: Subclass, data: Tensor) -> tuple[float | None, tuple[int, ...]]:
    """4-bit codes in 32-bit words, in whatever order a kernel likes; the logical shape stands in the metadata."""
    shape = one.data.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        return None, ()
    return (4 if data.size * 2 >= prod(shape) > data.size else None), tuple(shape)


def _mx(one: Subclass, data: Tensor) -> tuple[float | None, tuple[int, ...]]:
    return _float8(one, data) if data.dtype.startswith("F8_") else _two_per_byte(one, data)


_READERS: dict[str, Callable[[Subclass, Tensor], tuple[float | None, tuple[int, ...]]]] = {
    "Int8Tensor": _plain_bytes,
    "IntxUnpackedToInt8Tensor": _plain_bytes,
    "Float8Tensor": _float8,
    "Int4Tensor": _two_per_byte,
    "Int4PlainInt32Tensor": _eight_per_word,
    "Int4TilePackedTo4dTensor": _eight_per_word,
    "MXTensor": _mx,
    "NVFP4Tensor": _two_per_byte,
}


_NEEDED = {
    "IntxUnpackedToInt8Tensor": ("scale", "zero_point"), "Int4Tensor": ("scale", "zero_point"),
    "Int4PlainInt32Tensor": ("scale", "zero_point"), "Int4TilePackedTo4dTensor": ("scale_and_zero",),
}  # fmt: skip
"""Parts without which the codes mean nothing; for the others a scale."""


def _has_offset(zero_point: Tensor | None) -> bool:
    return zero_point is not None and bool(zero_point.raw().any())


def _activation_bits(one: Subclass) -> int | None:
    named, settings = one.data.get("activation_quantization"), one.data.get("act_quant_kwargs")
    if settings is not None:
        return 4 if one.kind == "NVFP4Tensor" or "float4" in str(settings) else 8
    if "float8" in str(one.data.get("activation_dtype")):
        return 8
    return 8 if named is not None and "int8" in str(named).lower() else None


def _claimed_width(method: str | None) -> float | None:
    """Weight width that the configuration's name tells: 4 for `Int8DynamicActivationInt4WeightConfig`, none for `Intx`."""
    found = _WEIGHT_WIDTH.search(method or "")
    return float(found[1]) if found else None


def _spelled_kind(one: Subclass) -> str:
    return (
        f"the unknown torchao kind {one.kind[:100]!r}" if one.kind else "a torchao kind that its header does not name"
    )

"""torchao, as transformers writes it: subclass data in flattened tensors, kinds in the header's metadata."""

from __future__ import annotations

import json
from typing import Any

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format, Layers, assemble
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.errors import ArtifactError

_WIDTHS = {"Int8Tensor": 8, "Float8Tensor": 8, "Int4Tensor": 4, "Int4TilePackedTo4dTensor": 4, "Int4PlainInt32Tensor": 4}


class TorchAo(Format):
    """`MODULE._weight_qdata`, `_weight_scale`, `_weight_zero_point`; the subclass is named in the metadata."""

    name = "torchao"

    def detect(self, files: ArtifactFiles) -> bool:
        """Flattened subclass data."""
        return any(name.endswith("._weight_qdata") for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers, dynamic = Layers(), []
        for name in sorted(files.tensors):
            if not name.endswith("._weight_qdata"):
                continue
            stem = name.removesuffix("._weight_qdata")
            kind, data = _subclass(files.metadata.get(f"{stem}.weight", ""))
            dynamic.append(data.get("act_quant_kwargs") is not None)
            parts = [other for other in files.tensors if other.startswith(f"{stem}._weight_")]
            layers.add(_layer(files, stem, kind, data), *parts)
        zero_points = any(
            bool(tensor.raw().any()) for name, tensor in files.tensors.items() if name.endswith("_weight_zero_point")
        )
        return assemble(
            files,
            layers,
            format="torchao",
            method=_method(files.quantization_config),
            symmetric=not zero_points,
            producer=None,
            calibration_required=False,
            activation_bits=8 if any(dynamic) else None,
        )


def _layer(files: ArtifactFiles, stem: str, kind: str, data: dict[str, Any]) -> LayerQuantization:
    stored: Tensor = files.tensors[f"{stem}._weight_qdata"]
    bits = _WIDTHS.get(kind) or data.get("target_dtype_bits") or _int_width(data)
    block = data.get("block_size")
    if bits is None or len(stored.shape) < 2:
        raise ArtifactError(
            f"The layer {stem} of {files.root.name} is of the torchao kind {kind or 'unknown'}, which is not known here.",
            why="Its width cannot be read from its bytes.",
            fix="quantize it as int8 or int4 weight-only, int8 dynamic, or float8",
        )
    # Two 4-bit codes share a byte; everything else is stored one code per element.
    per_element = 2 if bits == 4 and stored.dtype in {"U8", "I8"} and kind == "Int4Tensor" else 1
    shape = (stored.shape[0], stored.shape[1] * per_element)
    width = block[-1] if isinstance(block, list) and block else shape[1]
    return LayerQuantization(stem, bits, None if width >= shape[1] else int(width), shape, kind)


def _int_width(data: dict[str, Any]) -> int | None:
    """Width of `IntxUnpackedToInt8Tensor` and its like, from the data type that the metadata names."""
    named = str((data.get("target_dtype") or {}).get("_data", ""))
    digits = named.removeprefix("u").removeprefix("int")
    return int(digits) if digits.isdigit() else None


def _subclass(text: str) -> tuple[str, dict[str, Any]]:
    try:
        found = json.loads(text)
        return str(found.get("_type", "")), dict(found.get("_data") or {})
    except (ValueError, AttributeError, TypeError, RecursionError):
        return "", {}


def _method(config: dict[str, Any]) -> str | None:
    quant_type = config.get("quant_type")
    default = quant_type.get("default") if isinstance(quant_type, dict) else quant_type
    name = default.get("_type") if isinstance(default, dict) else default
    return str(name) if name else None

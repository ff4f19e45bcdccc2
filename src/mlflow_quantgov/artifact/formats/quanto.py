"""optimum-quanto: `weight._data` (8 bit) or `weight._data._data` (2 and 4 bit, packed), `weight._scale`, `weight._shift`.

Packed codes of n rows take ceil(n / (8 / bits)) rows of bytes. With groups, the matrix is stored as [groups, group
size] and its own shape nowhere: it is what bias or config say, and must have as many weights as are stored.
Source: optimum/quanto/tensor/{packed,grouped}.py and nn/qmodule.py; `quanto_qmap.json` says what each module is.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble, broken_layer, used_bits
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.scaled import FLOAT8
from mlflow_quantgov.artifact.formats.widths import matrix_shape
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import FLOATS

QMAP = "quanto_qmap.json"
_DATA = (".weight._data._data", ".weight._data")
_TYPES = {
    "qint2": 2.0,
    "qint4": 4.0,
    "qint8": 8.0,
    "qfloat8": 8.0,
    "int2": 2.0,
    "int4": 4.0,
    "int8": 8.0,
    "float8": 8.0,
}
_GROUPS = (128, 96, 64, 32)
"""Sizes that quanto chooses among; a matrix of no more than 128 columns has none."""
UNSHAPED = "int, shape unknown"
"""Type of a matrix in groups whose shape nothing tells."""


class Quanto(Format):
    """Reads widths from packed sizes, and compares them with quanto's own map of the model."""

    name = "quanto"

    def detect(self, files: ArtifactFiles) -> bool:
        """Inner tensors of quanto's weights."""
        return any(name.endswith(_DATA) for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers, centred, claimed = Layers(), [], _mapped(files)
        for name in sorted(files.tensors):
            stem = next((name.removesuffix(one) for one in _DATA if name.endswith(one)), None)
            if stem is not None and name.endswith(".weight._data._data"):
                layers.add(_packed(files, stem, claimed.get(stem, (None, None))[0]), parts_of(files, stem))
                centred.append(_is_centred(files, layers.found[-1]))
            elif stem is not None:
                layer = _plain(files, stem)
                layers.add(layer, parts_of(files, stem), "channel" if _scales(files, stem) > 1 else "tensor")
        _check(files, layers, claimed)
        active = {activation for _, activation in claimed.values() if activation not in {None, "none"}}
        unshaped = [layer.name for layer in layers.found if layer.type == UNSHAPED]
        warnings = (f"shape-unknown: neither bias nor config tell that of {unshaped[0][:100]}",) if unshaped else ()
        return assemble(
            replace(files, warnings=files.warnings + warnings),
            layers,
            format=self.name,
            method="quanto",
            symmetric=all(centred),
            producer=None,
            # Weights are only rounded; rounded activations have scales that were measured on data.
            calibration_required=bool(active) or _measured(files),
            activation_bits=8 if active or _measured(files) else None,
            claims=Claims(bits=_config_bits(files)),
        )


def parts_of(files: ArtifactFiles, stem: str) -> list[str]:
    """Names of the stored tensors of one module."""
    names = [f"{stem}{one}" for one in (*_DATA, ".weight._scale", ".weight._shift", ".input_scale", ".output_scale")]
    return [name for name in names if name in files.tensors]


def _scales(files: ArtifactFiles, stem: str) -> int:
    scale = files.tensors.get(f"{stem}.weight._scale")
    if scale is None or scale.dtype not in FLOATS or not scale.elements:
        raise broken_layer(files, stem, "quanto")
    return scale.elements


def _plain(files: ArtifactFiles, stem: str) -> LayerQuantization:
    data, scales = files.tensors[f"{stem}.weight._data"], _scales(files, stem)
    if len(data.shape) < 2 or not data.elements or scales not in {1, data.shape[0]}:
        raise broken_layer(files, stem, "quanto")
    if data.dtype == "I8":
        return LayerQuantization(
            stem, used_bits(data, rows=data.shape[0] if scales == 1 else 32), None, data.shape, "int"
        )
    if data.dtype not in FLOAT8:
        raise broken_layer(files, stem, "quanto")
    return LayerQuantization(stem, 8, None, data.shape, FLOAT8[data.dtype])


def _packed(files: ArtifactFiles, stem: str, claimed: str | None) -> LayerQuantization:
    data, rows = files.tensors[f"{stem}.weight._data._data"], _scales(files, stem)
    shift = files.tensors.get(f"{stem}.weight._shift")
    sound = (
        data.dtype == "U8" and len(data.shape) == 2 and data.elements and shift is not None and shift.elements == rows
    )
    fitting = [bits for bits in (4, 2) if sound and -(-rows // (8 // bits)) == data.shape[0]]
    if not fitting:
        raise broken_layer(files, stem, "quanto")
    # One or two rows take one row of bytes at either width.
    bits = 2 if len(fitting) > 1 and claimed == "qint2" else fitting[0]
    stored = rows, data.shape[1]
    shape = matrix_shape(files, stem, prod(stored))
    if shape == stored or (shape is None and stored[1] not in _GROUPS):
        return LayerQuantization(stem, bits, None, stored, "int")
    if shape is None:
        return LayerQuantization(stem, bits, stored[1], stored, UNSHAPED)
    if shape[-1] % stored[1]:
        raise broken_layer(files, stem, "quanto")
    return LayerQuantization(stem, bits, stored[1], shape, "int")


def _is_centred(files: ArtifactFiles, layer: LayerQuantization) -> bool:
    """Whether every shift is the middle of the range: half of it, times the scale where it is a float."""
    scale, shift = (files.tensors[f"{layer.name}.weight.{part}"] for part in ("_scale", "_shift"))
    middle = 2 ** (int(layer.bits) - 1)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.asarray(scale.values()) * middle if shift.dtype in FLOATS else middle
    return bool(np.all(np.asarray(shift.values()).reshape(-1) == np.asarray(expected).reshape(-1)))


def _measured(files: ArtifactFiles) -> bool:
    """Whether a module has an activation scale other than the initial one."""
    names = [name for name in files.tensors if name.endswith((".input_scale", ".output_scale"))]
    return any(bool(np.any(np.asarray(files.tensors[name].values()) != 1)) for name in names)


def _mapped(files: ArtifactFiles) -> dict[str, tuple[str | None, str | None]]:
    """Module to the types of its weights and activations, as quanto noted them."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for module, types in files.extra.get(QMAP, {}).items():
        if isinstance(types, dict):
            weights, activations = types.get("weights"), types.get("activations")
            found[str(module)] = (
                weights if isinstance(weights, str) else None,
                activations if isinstance(activations, str) else None,
            )
    return found


def _check(files: ArtifactFiles, layers: Layers, claimed: dict[str, tuple[str | None, str | None]]) -> None:
    read = {layer.name: layer for layer in layers.found}
    for module, (kind, _) in claimed.items():
        width = _width(kind)
        if width is None:
            continue
        layer = read.get(module)
        if layer is None:
            raise files.contradiction(QMAP, f"{kind} for {module[:100]}", "no quantized matrix of that name")
        floats = str(kind).startswith("qfloat8")
        if layer.bits != width or floats != (layer.type in FLOAT8.values()):
            found = f"{layer.bits:g} bit {'float' if layer.type in FLOAT8.values() else 'integers'}"
            raise files.contradiction(QMAP, f"{kind} for {module[:100]}", found)


def _width(kind: Any) -> float | None:
    return _TYPES.get(str(kind).split("_")[0]) if isinstance(kind, str) else None


def _config_bits(files: ArtifactFiles) -> tuple[tuple[str, float], ...]:
    """Widths that transformers' config names (`"weights": "int4"`)."""
    widths = ((place, _width(claim.get("weights"))) for place, claim in files.claims)
    return tuple((place, width) for place, width in widths if width is not None)

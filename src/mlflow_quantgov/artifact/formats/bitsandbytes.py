"""bitsandbytes: int8 with row scales; nf4 and fp4 with (perhaps nested) block scales.

A 4-bit matrix is flattened, two codes per byte; its shape stands in a small JSON in a byte tensor beside it.
Source: `QuantState.as_dict(packed=True)` and `Linear8bitLt._save_to_state_dict` of bitsandbytes.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.files import parse_json
from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble, broken_layer
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor

_STATE = re.compile(r"^(?P<weight>.+)\.quant_state\.bitsandbytes__(?P<kind>nf4|fp4)$")
_MAX_STATE_BYTES = 100_000
_EIGHT_BIT_PARTS = ("weight", "SCB", "weight_format")


class BitsAndBytes(Format):
    """Reads shape and block size from the state, and checks both against the stored bytes."""

    name = "bitsandbytes"

    @property
    def methods(self) -> frozenset[str]:
        """Values of `quant_method`, older ones included."""
        return frozenset({"bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"})

    def detect(self, files: ArtifactFiles) -> bool:
        """A quantization state, or int8 row scales."""
        return any(_STATE.match(name) or name.endswith(".SCB") for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers = Layers()
        parts = _parts_by_weight(files)
        for name in sorted(files.tensors):
            if found := _STATE.match(name):
                weight = found["weight"]
                layers.add(_four_bit(files, name, weight, found["kind"]), parts[weight])
            elif name.endswith(".SCB"):
                stem = name.removesuffix(".SCB")
                used = [f"{stem}.{part}" for part in _EIGHT_BIT_PARTS if f"{stem}.{part}" in files.tensors]
                layers.add(_eight_bit(files, stem), used)
        kinds = {str(layer.type) for layer in layers.found}
        _check_kind(files, kinds)
        return assemble(
            files,
            layers,
            format=self.name,
            method="-".join(sorted(kinds)),
            symmetric=True,
            producer=None,
            calibration_required=False,
            # LLM.int8() also rounds the activations, all but the outliers.
            activation_bits=8 if kinds == {"int8"} else None,
            claims=_claims(files),
        )


def _parts_by_weight(files: ArtifactFiles) -> dict[str, list[str]]:
    """Names of all tensors of each 4-bit matrix: the codes, and what stands below their name."""
    parts = {found["weight"]: [found["weight"]] for name in files.tensors if (found := _STATE.match(name))}
    for name in files.tensors:
        for suffix in (".absmax", ".nested_absmax", ".quant_map", ".nested_quant_map"):
            if name.endswith(suffix) and name.removesuffix(suffix) in parts:
                parts[name.removesuffix(suffix)].append(name)
        if found := _STATE.match(name):
            parts[found["weight"]].append(name)
    return parts


def _four_bit(files: ArtifactFiles, state_name: str, weight: str, kind: str) -> LayerQuantization:
    stored, scales = files.tensors.get(weight), files.tensors.get(f"{weight}.absmax")
    try:
        state = parse_json(files.tensors[state_name].raw(_MAX_STATE_BYTES).tobytes())
        shape, block = tuple(int(side) for side in state["shape"]), int(state["blocksize"])
        nested = int(state.get("nested_blocksize") or 0)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise broken_layer(files, weight, "bitsandbytes") from error
    count = prod(shape)
    sound = stored is not None and scales is not None and len(shape) in {2, 3} and min(shape) > 0 and block > 0
    if not sound or stored is None or scales is None or stored.size != (count + 1) // 2:
        raise broken_layer(files, weight, "bitsandbytes")
    if scales.elements != -(-count // block) or not _nested_fits(files, weight, scales, nested):
        raise broken_layer(files, weight, "bitsandbytes")
    # What the state says counts for loaders, whatever it is called.
    if _codebook(files.tensors.get(f"{weight}.quant_map")) != kind or state.get("quant_type", kind) != kind:
        raise broken_layer(files, weight, f"bitsandbytes {kind}")
    return LayerQuantization(weight.removesuffix(".weight"), 4, block, shape, kind)


def _nested_fits(files: ArtifactFiles, weight: str, scales: Tensor, block: int) -> bool:
    """Double quantization: scales are byte codes with scales of their own."""
    nested = files.tensors.get(f"{weight}.nested_absmax")
    if nested is None:
        return scales.dtype == "F32"
    return scales.dtype == "U8" and block > 0 and nested.elements == -(-scales.elements // block)


def _codebook(table: Tensor | None) -> str | None:
    """`nf4` or `fp4`, from the sixteen values: nf4's run from -1 to 1 in order, fp4's begin with zero."""
    if table is None or table.dtype != "F32" or table.elements != 16:
        return None
    values: Any = np.asarray(table.values()).reshape(-1)
    if values[0] == -1 and values[15] == 1 and bool(np.all(np.diff(values) > 0)):
        return "nf4"
    return "fp4" if values[0] == 0 and values[3] == 1 and bool(np.all(values[8:] <= 0)) else None


def _eight_bit(files: ArtifactFiles, stem: str) -> LayerQuantization:
    weight, scales = files.tensors.get(f"{stem}.weight"), files.tensors[f"{stem}.SCB"]
    layout = files.tensors.get(f"{stem}.weight_format")
    if weight is None or weight.dtype != "I8" or len(weight.shape) != 2 or scales.elements != weight.shape[0]:
        raise broken_layer(files, stem, "bitsandbytes int8")
    # Other numbers than 0 (plain rows) permute the codes for old GPUs; their shape then is not the matrix's.
    if layout is not None and (layout.size != 1 or int(layout.raw()[0]) != 0):
        raise broken_layer(files, stem, "row-major bitsandbytes int8")
    return LayerQuantization(stem, 8, None, weight.shape, "int8")


def _claims(files: ArtifactFiles) -> Claims:
    bits = []
    for place, claim in files.claims:
        for key, width in (("load_in_4bit", 4.0), ("load_in_8bit", 8.0)):
            if claim.get(key) is True:
                bits.append((place, width))
    return Claims(bits=tuple(bits))


def _check_kind(files: ArtifactFiles, kinds: set[str]) -> None:
    nested = any(name.endswith(".nested_absmax") for name in files.tensors)
    for place, claim in files.claims:
        if claim.get("load_in_4bit") is False and claim.get("load_in_8bit") is False:
            raise files.contradiction(place, "neither 4 nor 8 bit", ", ".join(sorted(kinds)))
        double = claim.get("bnb_4bit_use_double_quant")
        if (
            claim.get("load_in_4bit") is True
            and isinstance(double, bool)
            and double != nested
            and kinds & {"nf4", "fp4"}
        ):
            named = ("maxima as floats", "maxima that are quantized themselves (double quantization)")
            raise files.contradiction(place, named[double], named[nested])
        claimed = str(claim.get("bnb_4bit_quant_type") or "")
        if claim.get("load_in_4bit") is True and claimed and kinds & {"nf4", "fp4"} and claimed not in kinds:
            raise files.contradiction(place, claimed, ", ".join(sorted(kinds)))

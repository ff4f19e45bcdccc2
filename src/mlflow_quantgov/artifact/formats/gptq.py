"""GPTQ, as AutoGPTQ and gptqmodel write it: `qweight`, `qzeros`, `scales`, `g_idx` per linear layer.

`qweight` is [in * bits / word, out], packed along the input; `qzeros` [groups, out * bits / word]; `scales`
[groups, out]. Version 1 stores zero points minus one, version 2 as they are.
Source: AutoGPTQ's and gptqmodel's packing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble, broken_layer
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.packing import WORD_BITS, constant_words
from mlflow_quantgov.artifact.formats.patterns import Effort, matches_from_start
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors import Tensor

PARTS = ("qweight", "qzeros", "scales", "g_idx")
"""Tensors of one matrix."""


@dataclass(frozen=True)
class GptqLayer:
    """One matrix in GPTQ's layout."""

    facts: LayerQuantization
    zeros: Tensor
    act_order: bool
    """Whether groups are not in the order of the input."""
    in_turn: bool
    """Whether every column belongs to the group that its place gives, which loaders assume where no act-order is claimed."""


class Gptq(Format):
    """Reads width and group size from shapes, act-order from `g_idx`, symmetry from the zero points."""

    name = "gptq"

    def detect(self, files: ArtifactFiles) -> bool:
        """A matrix packed along its input: as many columns as its scales."""
        return any(
            is_input_packed(files, name.removesuffix(".qweight")) for name in files.tensors if name.endswith(".qweight")
        )

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers, read = Layers(), []
        claims = Claims.of(files, ("bits", "w_bit"), ("group_size",), per_layer="dynamic")
        for name in sorted(files.tensors):
            if name.endswith(".qweight"):
                stem = name.removesuffix(".qweight")
                layer = read_layer(files, stem, [size for _, size in claims.group_size if size])
                layers.add(layer.facts, [f"{stem}.{part}" for part in PARTS if f"{stem}.{part}" in files.tensors])
                read.append(layer)
        second = is_second_version(files)
        symmetric = is_symmetric(read, minus_one=not second)
        for place, claim in files.claims:
            if claim.get("sym") is True and not symmetric and not claims.overrides:
                raise files.contradiction(place, "symmetric quantization", "zero points off the middle")
            if claim.get("desc_act") is False and (scattered := _scattered(claim, read)) is not None:
                raise files.contradiction(
                    place, "columns in order (desc_act false)", f"others (g_idx of {scattered[:200]})"
                )
        return assemble(
            files,
            layers,
            format=self.name,
            method="gptq",
            symmetric=symmetric,
            producer=producer_of(files),
            calibration_required=True,
            desc_act=_is_reordered(files, read),
            claims=claims,
        )


def _scattered(claim: dict[str, Any], layers: list[GptqLayer]) -> str | None:
    """A layer with columns out of turn, and no rule of gptqmodel that asks for act-order there."""
    rules = claim.get("dynamic")
    patterns = [
        pattern.removeprefix("+:")
        for pattern, one in (rules.items() if isinstance(rules, dict) else ())
        if isinstance(one, dict) and one.get("desc_act") is True
    ]
    names, effort = (layer.facts.name for layer in layers if not layer.in_turn), Effort()
    return next(
        (name for name in names if not any(matches_from_start(one, name, effort=effort) for one in patterns)), None
    )


def _is_reordered(files: ArtifactFiles, layers: list[GptqLayer]) -> bool:
    """Whether columns were taken by activation; one group per row looks the same either way, so there the config is asked."""
    if all(layer.facts.group_size is None for layer in layers):
        return any(claim.get("desc_act") is True for _, claim in files.claims)
    return any(layer.act_order for layer in layers)


def is_second_version(files: ArtifactFiles) -> bool:
    """Whether zero points are stored as they are (version 2); configs that disagree were refused before (`side_configs.py`)."""
    return any("gptq_v2" in (claim.get("checkpoint_format"), claim.get("format")) for _, claim in files.claims)


def is_input_packed(files: ArtifactFiles, stem: str) -> bool:
    """Whether a packed matrix has GPTQ's layout rather than AWQ's."""
    weight, scales = files.tensors.get(f"{stem}.qweight"), files.tensors.get(f"{stem}.scales")
    return bool(
        weight and scales and len(weight.shape) == len(scales.shape) == 2 and weight.shape[1] == scales.shape[1]
    )


def read_layer(files: ArtifactFiles, stem: str, claimed_groups: list[int]) -> GptqLayer:
    """One matrix.

    Args:
        files: The artifact.
        stem: Name without `.qweight`.
        claimed_groups: Group sizes that the config names, for rows whose last group is shorter.

    Raises:
        ArtifactError: Its tensors do not fit each other.
    """
    weight, zeros, scales, index = (files.tensors.get(f"{stem}.{part}") for part in PARTS)
    if (
        weight is None
        or zeros is None
        or scales is None
        or weight.dtype not in WORD_BITS
        or zeros.dtype != weight.dtype
    ):
        raise broken_layer(files, stem, "GPTQ")
    if not len(weight.shape) == len(zeros.shape) == len(scales.shape) == 2 or not scales.elements:
        raise broken_layer(files, stem, "GPTQ")
    word, (groups, out_features) = WORD_BITS[weight.dtype], scales.shape
    bits, rest = divmod(zeros.shape[1] * word, out_features)
    if rest or bits not in {2, 3, 4, 8} or zeros.shape[0] != groups or weight.shape[1] != out_features:
        raise broken_layer(files, stem, "GPTQ")
    in_features, rest = divmod(weight.shape[0] * word, bits)
    if rest or not in_features or (index is not None and index.shape != (in_features,)):
        raise broken_layer(files, stem, "GPTQ")
    size, act_order = _grouping(files, stem, index, groups, in_features, claimed_groups)
    in_turn = index is None or np.array_equal(np.asarray(index.values()), np.arange(in_features) // size)
    kind = LayerQuantization(stem, bits, size if groups > 1 else None, (out_features, in_features), "gptq")
    return GptqLayer(kind, zeros, act_order, in_turn)


def _grouping(
    files: ArtifactFiles, stem: str, index: Tensor | None, groups: int, in_features: int, claimed: list[int]
) -> tuple[int, bool]:
    """Group size, and whether the columns were reordered. The last group of a row may be shorter than the others."""
    if index is None:
        even = -(-in_features // groups)
        return next((size for size in claimed if -(-in_features // size) == groups), even), False
    if index.dtype not in {"I32", "I64"}:
        raise broken_layer(files, stem, "GPTQ")
    of_column = np.asarray(index.values())
    if int(of_column.min()) < 0 or int(of_column.max()) >= groups:
        raise broken_layer(files, stem, "GPTQ")
    return int(np.bincount(of_column).max()), bool(np.any(np.diff(of_column) < 0))


def is_symmetric(layers: list[GptqLayer], *, minus_one: bool) -> bool:
    """Whether every zero point is the middle of the range; version 1 stores it minus one."""
    for layer in layers:
        bits, stored = int(layer.facts.bits), np.asarray(layer.zeros.stored())
        middle = 2 ** (bits - 1)
        if not np.array_equal(stored, constant_words(middle - minus_one, bits, stored)):
            return False
    return True


def producer_of(files: ArtifactFiles) -> str | None:
    """Tool and version, where a config that gptqmodel, AutoGPTQ or AutoRound wrote names them."""
    for _, claim in files.claims:
        if claim.get("provider") == "auto-round":
            return " ".join(filter(None, ("auto-round", str(claim.get("autoround_version") or ""))))
        meta = claim.get("meta")
        quantizer = (meta.get("quantizer") if isinstance(meta, dict) else None) or claim.get("quantizer")
        found = quantizer[0] if isinstance(quantizer, list) and quantizer else quantizer
        if isinstance(found, str) and found:
            return found.replace(":", " ")
    return None

"""From quantized matrices to facts about the whole model."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeVar

import numpy as np

from mlflow_quantgov.artifact.formats.exclusions import check_exclusions
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.language import is_language_model
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization, Quantization
from mlflow_quantgov.artifact.structure import stored_twice, structure_of_config
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor
from mlflow_quantgov.errors import ArtifactError

_COMPARE_CHUNK = 1 << 22
_MOST_CLAIMED = 2**31
_CODES = (".weight", ".weight_packed", ".qweight", "_qdata")
"""Ends the names of tensors that mean nothing as whole numbers: what makes weights of them is missing."""
_EMBEDDINGS = ("embed_tokens.weight", "token_embd.weight", "wte.weight", "word_embeddings.weight")
_Key = TypeVar("_Key", bound=Hashable)


@dataclass
class Layers:
    """Collects quantized matrices while a reader walks over the tensors."""

    found: list[LayerQuantization] = field(default_factory=list)
    granularities: list[str] = field(default_factory=list)
    """Of each matrix in `found`: `group`, `channel` or `tensor`."""
    used: set[str] = field(default_factory=set)
    """Names of the stored tensors that make up the quantized matrices."""
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Name and shape of each matrix as its full-precision parent stores it."""
    stored: dict[str, str] = field(default_factory=dict)
    """The same names to that of a tensor which the matrix consists of."""
    twice: list[tuple[str, str]] = field(default_factory=list)
    """Tensors of two matrices that are the same parameter, as a graph may have them."""

    def add(
        self,
        layer: LayerQuantization,
        tensors: Iterable[str],
        granularity: str | None = None,
        parameter: tuple[str, tuple[int, ...]] | None = None,
    ) -> None:
        """Add a matrix.

        Args:
            layer: The matrix.
            tensors: Names of the stored tensors that it consists of.
            granularity: `group`, `channel` or `tensor`; by default what the group size says.
            parameter: Name and shape that the parent gives it; by default `NAME.weight` and the logical shape.
        """
        name, shape = parameter or (f"{layer.name}.weight", layer.shape)
        tensors = list(tensors)
        stored = tensors[0] if tensors else name
        if name in self.parameters:
            self.twice.append((self.stored[name], stored))
        self.found.append(layer)
        self.granularities.append(granularity or ("group" if layer.group_size else "channel"))
        self.used.update(tensors)
        self.parameters[name] = shape
        self.stored[name] = stored

    def weights_by(self, keys: Iterable[_Key]) -> dict[_Key, int]:
        """Number of weights for each value of a property that is given per matrix."""
        counted: dict[_Key, int] = {}
        for key, layer in zip(keys, self.found, strict=True):
            counted[key] = counted.get(key, 0) + prod(layer.shape)
        return counted


@dataclass(frozen=True)
class Claims:
    """What the configs say, to be compared with the tensors: (file, value) pairs."""

    bits: tuple[tuple[str, float], ...] = ()
    group_size: tuple[tuple[str, int | None], ...] = ()
    overrides: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    """What a config sets for some layers: file, name or pattern of the layers, `bits` and `group_size`."""

    @classmethod
    def of(
        cls, files: ArtifactFiles, bits: tuple[str, ...], group: tuple[str, ...] = (), per_layer: str = ""
    ) -> Claims:
        """Gather the claims that stand under the given keys of any config.

        Args:
            files: The artifact.
            bits: Keys of the width.
            group: Keys of the group size.
            per_layer: Key of an object that sets both anew for some layers.
        """
        widths, groups, overrides = [], [], []
        for place, claim in files.claims:
            widths += [(place, float(claim[key])) for key in bits if _is_number(claim.get(key))]
            groups += [(place, _size(claim[key])) for key in group if _is_number(claim.get(key))]
            settings = claim.get(per_layer)
            for name, one in settings.items() if isinstance(settings, dict) else ():
                overrides.append((place, str(name), one if isinstance(one, dict) else {}))
        return cls(tuple(widths), tuple(groups), tuple(overrides))


def assemble(
    files: ArtifactFiles,
    layers: Layers,
    *,
    format: str,
    method: str | None,
    symmetric: bool | None,
    producer: str | None,
    calibration_required: bool | None,
    claims: Claims = Claims(),
    activation_bits: int | None = None,
    kv_cache_bits: int | None = None,
    desc_act: bool | None = None,
) -> Inspection:
    """Facts of a safetensors model with quantized matrices.

    Raises:
        ArtifactError: No quantized matrix was found, one lacks its scales or is stored a second time, or a config claims
            another width, group size or choice of modules than the tensors have.
    """
    if not layers.found:
        raise files.contradiction("The config", f"the format {format}", "no quantized matrix")
    widths = layers.weights_by(layer.bits for layer in layers.found)
    _name_whole_rows(layers, claims)
    # Most quantized *weights* decide, so a wide matrix counts for more than a narrow one.
    bits = most(widths)
    group = most(layers.weights_by(layer.group_size for layer in layers.found))
    check_claims(files, layers, claims)
    check_exclusions(files, (layer.name for layer in layers.found))
    plain = {name: tensor for name, tensor in files.tensors.items() if name not in layers.used}
    for name, tensor in plain.items():
        if tensor.dtype not in FLOATS and name.endswith(_CODES):
            raise broken_layer(files, name, format)
    twice = layers.twice + [(layers.stored[name], name) for name in sorted(plain.keys() & layers.parameters.keys())]
    if twice:
        raise stored_twice(*twice[0])
    shapes = layers.parameters | {name: tensor.shape for name, tensor in plain.items()}
    quantized = sum(prod(layer.shape) for layer in layers.found)
    tied = tied_output(plain, files.config)
    total = quantized + logical_elements(plain, tied)
    facts = Quantization(
        format=format,
        method=method,
        bits=bits,
        bits_per_weight=8 * sum(tensor.size for tensor in files.tensors.values()) / total,
        group_size=group,
        granularity=most(layers.weights_by(layers.granularities)),
        symmetric=symmetric,
        activation_bits=activation_bits,
        kv_cache_bits=kv_cache_bits,
        desc_act=desc_act,
        dtype=dtype_of(plain),
        quantized_parameters=quantized,
        total_parameters=total,
        size_bytes=files.size_bytes,
        producer=producer,
        calibration_required=calibration_required,
        layers=tuple(layers.found),
        warnings=files.warnings + mixed_widths(widths),
    )
    structure = replace(structure_of_config(files.config, shapes), tied=tied is not None)
    return Inspection(facts, structure, is_language_model(files))


def _name_whole_rows(layers: Layers, claims: Claims) -> None:
    """Call a row with one scale a group where the config says groups that are just as long, and nothing of channels."""
    sizes = {size for _, size in claims.group_size}
    sizes |= {_size(one["group_size"]) for _, _, one in claims.overrides if _is_number(one.get("group_size"))}
    if None in sizes:
        return
    for number, layer in enumerate(layers.found):
        if layers.granularities[number] == "channel" and layer.shape[-1] in sizes:
            layers.found[number] = replace(layer, group_size=layer.shape[-1])
            layers.granularities[number] = "group"


def most(weights: Mapping[_Key, int]) -> _Key:
    """The key with most weights; among equals the first in order of spelling, so that the answer is always the same."""
    return min(weights, key=lambda key: (-weights[key], str(key)))


def mixed_widths(weights: Mapping[float, int]) -> tuple[str, ...]:
    """The warning `mixed-widths` where not all quantized weights have the same width."""
    if len(weights) < 2:
        return ()
    parts = ", ".join(f"{width:g} bit: {count:,} weights" for width, count in sorted(weights.items()))
    return (f"mixed-widths: {parts}",)


def dtype_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Storage type of most unquantized elements, as torch spells it."""
    elements: dict[str, int] = {}
    for tensor in tensors.values():
        if tensor.dtype in FLOATS:
            elements[tensor.dtype] = elements.get(tensor.dtype, 0) + tensor.elements
    return FLOATS[most(elements)] if elements else None


def tied_output(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor | None:
    """The output matrix, where it repeats the embedding: the config says so, or both hold the same bytes."""
    embedding = next((one for name, one in tensors.items() if name.endswith(_EMBEDDINGS)), None)
    output = next((tensors[name] for name in ("lm_head.weight", "output.weight") if name in tensors), None)
    if embedding is None or output is None or embedding.shape != output.shape:
        return None
    text = config.get("text_config")
    said = any(isinstance(one, dict) and one.get("tie_word_embeddings") is True for one in (config, text))
    return output if said or _same_bytes(embedding, output) else None


def logical_elements(tensors: Mapping[str, Tensor], tied: Tensor | None) -> int:
    """Parameters of unquantized tensors, where an output matrix that repeats the embedding counts once."""
    total = sum(tensor.elements for tensor in tensors.values())
    return total - tied.elements if tied is not None else total


def used_bits(tensor: Tensor, rows: int = 32) -> int:
    """Width that signed 8-bit codes really use, from evenly spaced rows of a matrix.

    Rounding to k bits makes each scale group reach the end of its k-bit range, so a few whole rows show k. Where one
    scale serves the whole tensor, pass `rows` as large as the tensor.
    """
    codes = tensor.stored().reshape(-1, tensor.shape[-1]) if tensor.elements else np.zeros((1, 1), dtype=np.int8)
    chosen = codes[:: max(1, len(codes) // rows)]
    low, high = int(chosen.min()), int(chosen.max())
    if low == high == 0 and not tells_width(tensor):
        return 8
    return next((bits for bits in range(1, 8) if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)), 8)


def tells_width(tensor: Tensor) -> bool:
    """Whether any code differs from zero: a matrix of zeros (a pruned or padded one) has codes of no width."""
    return bool(tensor.raw().any())


def check_claims(files: ArtifactFiles, layers: Layers, claims: Claims) -> None:
    """Compare what configs claim with the matrices that were found.

    Raises:
        ArtifactError: A config claims another width or group size.
    """
    widths = {layer.bits for layer in layers.found}
    if claims.overrides:
        _check_overrides(files, layers, claims)
    elif len(widths) == 1:
        for place, claimed in claims.bits:
            if claimed not in widths:
                raise files.contradiction(place, f"{claimed:g} bit", f"{next(iter(widths)):g} bit")
    allowed: dict[str, set[int | None]] = {}
    for place, size in claims.group_size:
        allowed.setdefault(place, set()).add(size)
    for place, _, settings in claims.overrides:
        if place in allowed and _is_number(settings.get("group_size")):
            allowed[place].add(_size(settings["group_size"]))
    for place, sizes in allowed.items():
        for layer in layers.found:
            # A matrix that is no longer than the group has one scale per channel.
            expected = {size if size and size <= layer.shape[-1] else None for size in sizes}
            if layer.group_size not in expected:
                spelled = " or ".join(sorted(_grouping(size) for size in sizes))
                raise files.contradiction(place, spelled, f"{_grouping(layer.group_size)} (in {layer.name[:100]})")


def _check_overrides(files: ArtifactFiles, layers: Layers, claims: Claims) -> None:
    """Compare widths where a config sets them layer by layer.

    Names are compared exactly. Patterns are not run, as a hostile one could take forever: a layer that none names must
    have one of the widths that the config gives to anything.
    """
    named = {name: (place, one["bits"]) for place, name, one in claims.overrides if _is_number(one.get("bits"))}
    anywhere = {width for _, width in claims.bits} | {float(width) for _, width in named.values()}
    for layer in layers.found:
        place, width = named.get(layer.name, (claims.overrides[0][0], None))
        if width is not None and width != layer.bits:
            raise files.contradiction(place, f"{width:g} bit for {layer.name[:100]}", f"{layer.bits:g} bit")
        if claims.bits and layer.bits not in anywhere:
            spelled = " or ".join(f"{one:g} bit" for one in sorted(anywhere))
            raise files.contradiction(place, spelled, f"{layer.bits:g} bit (in {layer.name[:100]})")


def _size(claimed: float) -> int | None:
    """A claimed group size; -1 and 0 stand for one scale per channel."""
    return int(claimed) if claimed > 0 else None


def _grouping(size: int | None) -> str:
    return f"group size {size}" if size else "one scale per channel"


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same; read piece by piece, since mapping a whole vocabulary counts as memory."""
    if one.dtype != other.dtype or one.size != other.size:
        return False
    with one.file.open("rb") as left, other.file.open("rb") as right:
        left.seek(one.offset)
        right.seek(other.offset)
        for at in range(0, one.size, _COMPARE_CHUNK):
            count = min(_COMPARE_CHUNK, one.size - at)
            if left.read(count) != right.read(count):
                return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_CLAIMED


def broken_layer(files: ArtifactFiles, name: str, container: str) -> ArtifactError:
    """The error for a matrix whose stored parts do not fit each other."""
    return ArtifactError(
        f"The layer {name[:200]} of {files.root.name} is no sound {container} layer: its tensors disagree.",
        why="Width, group size and shape are read from them, and from these they cannot be.",
        fix="copy or download the folder again, or quantize it again, then quantgov inspect PATH",
    )

"""From the weights of a computation graph (ONNX, OpenVINO) to facts about the whole model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, check_claims, dtype_of, mixed_widths, most
from mlflow_quantgov.artifact.formats.codes import place_of
from mlflow_quantgov.artifact.formats.full_precision import ON_GRID
from mlflow_quantgov.artifact.formats.grid import lies_on_grid
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.language import architectures_of, is_known_encoder
from mlflow_quantgov.artifact.formats.unread import unread
from mlflow_quantgov.artifact.graph_structure import NamedShape, model_config, structure_of_graph
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization, Quantization
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor

NARROW = frozenset({
    "I8", "U8", "I4", "U4", "I2", "U2", "U1", "U3", "U6", "NF4", "F4", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2",
    "F8_E5M2FNUZ", "F8_E8M0",
})  # fmt: skip
"""Storage types that no unquantized weights have."""
MOST_UNKNOWN = 4096
"""Elements of narrow tensors that may have another use than as weights (tables, flags)."""
BUFFER = re.compile(r"(cos|sin)_cache|inv_freq|rotary_emb|causal_mask|attn_mask")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class WeightUse:
    """One matrix, and the operation that it is a weight of."""

    tensor: Tensor
    """The codes, or the floats where it is not quantized."""
    name: str | None
    """Hugging Face's name without `.weight`; None where the graph tells none."""
    shape: tuple[int, ...]
    """Logical, [out, in]."""
    kind: str
    """`matrix`, `embedding` or `other`."""
    bits: float | None = None
    group_size: int | None = None
    granularity: str | None = None
    symmetric: bool | None = None
    type: str | None = None
    parts: tuple[str, ...] = ()
    """Names of the tensors that belong to it: scales, zero points."""


@dataclass
class GraphReading:
    """What a reader found in a graph."""

    tensors: Mapping[str, Tensor]
    """All of them."""
    uses: list[WeightUse]
    producer: str | None
    generative: bool
    """Whether inputs or operations are those of a decoder: a cache of keys and values."""
    token_inputs: bool
    """Whether an input is called what tokens are called."""
    heads: tuple[int, int] | None = None
    """Attention heads and key-value heads, where an operation states them."""
    activation_bits: int | None = None
    static: bool = False
    """Whether activations are rounded with scales that stand in the file: somebody measured them."""
    calibrated: bool | None = False
    """Whether the weights were fitted to data; None where bytes cannot tell."""
    kv_cache_bits: int | None = None
    desc_act: bool | None = None
    warnings: tuple[str, ...] = ()
    unknown: dict[str, str] = field(default_factory=dict)
    """Narrow tensors whose use is not understood, and what uses them."""


def assemble_graph(files: ArtifactFiles, name: str, read: GraphReading) -> Inspection:
    """Facts of a graph.

    Raises:
        UnknownFormatError: It holds narrow tensors that are used in a way which is not known here.
        ArtifactError: A config claims another architecture than the tensors have.
    """
    _refuse_unknown(files, name, read)
    quantized = _once(one for one in read.uses if one.bits is not None)
    layers = Layers()
    for one in quantized:
        assert one.bits is not None
        called = one.name or one.tensor.name
        layer = LayerQuantization(called, one.bits, one.group_size, one.shape, one.type)
        layers.add(layer, (one.tensor.name, *one.parts), one.granularity)
    check_claims(files, layers, Claims.of(files, ("bits",)))
    used = layers.used | {part for one in read.uses if one.bits is not None for part in (one.tensor.name, *one.parts)}
    plain = {key: one for key, one in read.tensors.items() if key not in used}
    widths = layers.weights_by(layer.bits for layer in layers.found)
    weights = sum(widths.values())
    copied, quantized_twice = _repeated(read, model_config(files))
    total = weights + _parameters(plain) - copied
    stored = sum({place_of(one): one.size for one in read.tensors.values()}.values())
    floats = {key: one for key, one in plain.items() if one.dtype in FLOATS and not BUFFER.search(key)}
    warnings = files.warnings + mixed_widths(widths) + read.warnings
    if not layers.found and lies_on_grid(floats):
        warnings += (ON_GRID,)
    symmetries = layers.weights_by(one.symmetric for one in quantized)
    facts = Quantization(
        format=name,
        method=None,
        bits=most(widths) if widths else None,
        bits_per_weight=8 * stored / total if total else 0.0,
        group_size=most(layers.weights_by(layer.group_size for layer in layers.found)) if widths else None,
        granularity=most(layers.weights_by(layers.granularities)) if widths else None,
        symmetric=most(symmetries) if symmetries else None,
        activation_bits=read.activation_bits,
        kv_cache_bits=read.kv_cache_bits,
        desc_act=read.desc_act,
        dtype=dtype_of(floats),
        quantized_parameters=weights - copied if quantized_twice else weights,
        total_parameters=total,
        size_bytes=files.size_bytes,
        producer=read.producer,
        calibration_required=True if read.static else read.calibrated,
        layers=tuple(layers.found),
        warnings=warnings,
    )
    named = [NamedShape(one.name, one.shape, one.kind) for one in read.uses if len(one.shape) >= 2]
    return Inspection(
        facts, replace(structure_of_graph(files, named, read.heads), tied=copied > 0), is_language_model(files, read)
    )


def is_language_model(files: ArtifactFiles, read: GraphReading) -> bool:
    """Whether a graph is a language model's; what it computes counts for more than what a config calls it.

    A cache of keys and values, or an embedding and an output matrix of the same size, is one. Otherwise an input that is
    called `input_ids` is taken for a language model's, unless the config is one of a known encoder.
    """
    embeddings = {one.shape for one in read.uses if one.kind == "embedding"}
    heads = any(one.kind == "matrix" and one.shape in embeddings for one in read.uses)
    if read.generative or heads or files.extra.get("genai_config.json"):
        return True
    if is_known_encoder(files):
        return False
    generating = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
    return read.token_inputs or any(one.endswith(generating) for one in architectures_of(files))


def _refuse_unknown(files: ArtifactFiles, name: str, read: GraphReading) -> None:
    if sum(read.tensors[one].elements for one in read.unknown) <= MOST_UNKNOWN:
        return
    largest = max(read.unknown, key=lambda one: read.tensors[one].elements)
    tensor = read.tensors[largest]
    raise unread(
        files, f"{name} with the tensor {largest[:100]} of type {tensor.dtype} under {read.unknown[largest][:60]},"
    )


def _once(uses: Iterable[WeightUse]) -> list[WeightUse]:
    """Each stored matrix once, however many operations use it."""
    found: dict[tuple[str, int, int], WeightUse] = {}
    for one in uses:
        found.setdefault(place_of(one.tensor), one)
    return list(found.values())


def _parameters(tensors: Mapping[str, Tensor]) -> int:
    """Floats that are parameters: no tables of positions, no single constants; shared bytes count once."""
    found = {
        place_of(one): one.elements
        for name, one in tensors.items()
        if (one.dtype in FLOATS or one.dtype in NARROW) and one.elements > 1 and not BUFFER.search(name)
    }
    return sum(found.values())


def _repeated(read: GraphReading, config: Mapping[str, object]) -> tuple[int, bool]:
    """Parameters of an output matrix that is stored a second time as the embedding, and whether both are quantized.

    Exporters lose the name of either; then only the same numbers show it.
    """
    embedding = next((one for one in read.uses if one.kind == "embedding" and one.name in _EMBEDDINGS), None)
    if embedding is None:
        return 0, False
    outputs = [one for one in read.uses if one.kind == "matrix" and one.name in {"lm_head", None}]
    for one in outputs:
        if one.shape != embedding.shape or place_of(one.tensor) == place_of(embedding.tensor):
            continue
        said = one.name is not None and config.get("tie_word_embeddings") is True
        if said or _same_weights(read, embedding, one):
            return prod(one.shape), embedding.bits is not None and one.bits is not None
    return 0, False


_EMBEDDINGS = frozenset({"model.embed_tokens", "transformer.wte", None})


def _same_weights(read: GraphReading, one: WeightUse, other: WeightUse) -> bool:
    """Whether two matrices hold the same numbers: the same codes or floats, and the same scales and zero points."""
    beside = [[read.tensors[part] for part in use.parts] for use in (one, other)]
    if (one.bits, one.group_size) != (other.bits, other.group_size) or len(beside[0]) != len(beside[1]):
        return False
    pairs = zip(*beside, strict=True)
    return _same_numbers(one.tensor, other.tensor) and all(_same_bytes(left, right) for left, right in pairs)


def _same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, as they are or turned round."""
    if _same_bytes(one, other):
        return True
    whole = one.dtype in FLOATS or one.dtype in {"I8", "U8"}
    if one.dtype != other.dtype or not whole or len(one.shape) != 2 or one.shape != other.shape[::-1]:
        return False
    left, right = one.stored(), other.stored().T
    rows = max(1, _CHUNK // max(1, left.shape[1]))
    return all(np.array_equal(left[at : at + rows], right[at : at + rows]) for at in range(0, left.shape[0], rows))


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one type are stored alike, in whatever shape."""
    if one.dtype != other.dtype or one.size != other.size or one.shape == other.shape[::-1] != one.shape:
        return False
    left, right = one.raw(), other.raw()
    return all(np.array_equal(left[at : at + _CHUNK], right[at : at + _CHUNK]) for at in range(0, one.size, _CHUNK))

"""GGUF: every tensor names its own storage type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlflow_quantgov.artifact.formats.assemble import dtype_of, logical_elements, mixed_widths, most, tied_output
from mlflow_quantgov.artifact.formats.full_precision import ON_GRID
from mlflow_quantgov.artifact.formats.grid import lies_on_grid
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization, Quantization
from mlflow_quantgov.artifact.structure import structure_of_gguf
from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.artifact.tensors.ggml_types import BY_NAME, FILE_TYPES, SYMMETRIC
from mlflow_quantgov.artifact.tensors.gguf import PROJECTOR
from mlflow_quantgov.errors import ArtifactError

_NO_MODELS = {"adapter": "an adapter", "imatrix": "an importance matrix", "vocab": "a vocabulary"}
"""`general.type` of files that are no models."""
_IMATRIX = "quantize.imatrix."
_NEEDS_IMATRIX = ("IQ1", "IQ2")
_USUALLY_IMATRIX = ("IQ3", "IQ4")


class Gguf(Format):
    """Reads one file, or the parts of a split one together."""

    name = "gguf"

    def detect(self, files: ArtifactFiles) -> bool:
        """GGUF files are all there is."""
        return bool(files.ggufs)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        metadata = files.ggufs[0].metadata
        tensors = {name: tensor for part in files.ggufs for name, tensor in part.tensors.items()}
        matrices = {name: one for name, one in tensors.items() if BY_NAME[one.dtype].bits is not None}
        plain = {name: one for name, one in tensors.items() if name not in matrices}
        _refuse_parts(files, metadata, tensors)
        layers = tuple(_layer(one) for one in matrices.values())
        by_type, by_width = _weights(matrices), _widths(matrices)
        main = BY_NAME[most(by_type)] if by_type else None
        method, warnings = _method(files, metadata, by_type, plain)
        tied = tied_output(tensors, {})
        total = logical_elements(tensors, tied)
        if not matrices and lies_on_grid(plain):
            warnings += (ON_GRID,)
        if metadata.get("general.architecture") == PROJECTOR:
            warnings += ("projector-only: it turns pictures or sound into a language model's input, which is not here",)
        facts = Quantization(
            format=self.name,
            method=method,
            bits=most(by_width) if by_width else None,
            bits_per_weight=8 * sum(one.size for one in tensors.values()) / total if total else 0.0,
            group_size=main.group if main else None,
            granularity="group" if main else None,
            symmetric=main.name in SYMMETRIC if main else None,
            activation_bits=None,
            kv_cache_bits=None,
            desc_act=None,
            dtype=dtype_of(plain),
            quantized_parameters=sum(by_width.values()),
            total_parameters=total,
            size_bytes=files.size_bytes,
            producer=_producer(metadata),
            calibration_required=_needs_calibration(metadata, by_type, method),
            layers=layers,
            warnings=files.warnings + mixed_widths(by_width) + warnings,
        )
        shapes = {name: one.shape for name, one in tensors.items()}
        language = "tokenizer.ggml.model" in metadata or "token_embd.weight" in tensors
        return Inspection(facts, replace(structure_of_gguf(metadata, shapes), tied=tied is not None), language)


def _refuse_parts(files: ArtifactFiles, metadata: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuse what llama.cpp keeps in GGUF files beside models: adapters, importance matrices, vocabularies.

    Raises:
        ArtifactError: It is one of these.
    """
    what = _NO_MODELS.get(str(metadata.get("general.type")))
    if what is None and any(name.endswith((".lora_a", ".lora_b")) for name in tensors):
        what = _NO_MODELS["adapter"]
    if what is None and tensors:
        return
    raise ArtifactError(
        f"The GGUF file of {files.root.name} is {what or 'a vocabulary without weights'}, no model of its own.",
        why="What would be served is a model together with it; nothing here says which.",
        fix="name the model's own GGUF file; merge an adapter first (llama-export-lora)",
    )


def _layer(tensor: Tensor) -> LayerQuantization:
    storage = BY_NAME[tensor.dtype]
    return LayerQuantization(
        tensor.name.removesuffix(".weight"), storage.bits or 0, storage.group, tensor.shape, storage.name
    )


def _weights(tensors: dict[str, Tensor]) -> dict[str, int]:
    """Number of weights of each storage type."""
    counted: dict[str, int] = {}
    for one in tensors.values():
        counted[one.dtype] = counted.get(one.dtype, 0) + one.elements
    return counted


def _widths(tensors: dict[str, Tensor]) -> dict[float, int]:
    """Number of weights of each width in bits."""
    counted: dict[float, int] = {}
    for dtype, count in _weights(tensors).items():
        bits = BY_NAME[dtype].bits or 0
        counted[bits] = counted.get(bits, 0) + count
    return counted


def _method(
    files: ArtifactFiles, metadata: dict[str, Any], by_type: dict[str, int], plain: dict[str, Tensor]
) -> tuple[str | None, tuple[str, ...]]:
    """File type, where the tensors bear it out.

    Short rows make a quantizer fall back to a wider type than the file type names, which is a warning; no rule makes it
    choose a narrower one for every matrix, so that is an error.
    """
    found = by_type or _weights({name: one for name, one in plain.items() if len(one.shape) > 1}) or _weights(plain)
    main = most(found) if found else None
    noted = metadata.get("general.file_type")
    name, expected = FILE_TYPES.get(noted, (None, None)) if type(noted) is int else (None, None)
    if name is None or expected is None or main is None or main == expected:
        return name or main, ()
    claimed, width = BY_NAME[expected].bits or 16, BY_NAME[main].bits or 16
    if width < claimed and expected not in found:
        raise files.contradiction("general.file_type", name, f"mostly {main}")
    warning = (f"file-type-differs: the file calls itself {name}, most weights are {main}",)
    return (main if width < claimed or not by_type else name), warning


def _needs_calibration(metadata: dict[str, Any], by_type: dict[str, int], method: str | None) -> bool | None:
    """True where an importance matrix was used or the type demands one; None where one is usual and not noted."""
    if any(key.startswith(_IMATRIX) for key in metadata) or method == "Q2_K_S":
        return True
    if any(kind.startswith(_NEEDS_IMATRIX) for kind in by_type):
        return True
    # K types fall back to IQ4_NL for short rows, with or without a matrix; only the file type tells.
    return None if method is not None and method.startswith(_USUALLY_IMATRIX) else False


def _producer(metadata: dict[str, Any]) -> str | None:
    found = metadata.get("general.quantized_by")
    return str(found)[:200] if found else None

"""Full precision: float tensors and nothing else; a quantized model written back as floats is noticed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import dtype_of, logical_elements, tied_output
from mlflow_quantgov.artifact.formats.grid import lies_on_grid
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.language import is_language_model
from mlflow_quantgov.artifact.formats.unread import format_of_tensors, unread
from mlflow_quantgov.artifact.quantization import Inspection, Quantization
from mlflow_quantgov.artifact.structure import structure_of_config
from mlflow_quantgov.artifact.tensors import FLOATS, Tensor

ON_GRID = "on-k-bit-grid"
_MASK = re.compile(r"\battn\.(bias|masked_bias)$|attention\.(bias|masked_bias)$")
_POSITIONS = re.compile(r"\bposition_ids$")
_BUFFER = re.compile(r"rotary_emb\.inv_freq$|\bnum_batches_tracked$")
_MAX_BUFFER_BYTES = 64 * 1024 * 1024


class FullPrecision(Format):
    """All weights are floats, and no config claims otherwise."""

    name = "full-precision"

    def detect(self, files: ArtifactFiles) -> bool:
        """Only floats (and buffers that are no weights), and no claim of a quantization."""
        if not files.tensors or files.quantization_config:
            return False
        narrow = next((one for one in files.tensors.values() if one.dtype not in FLOATS and not _is_buffer(one)), None)
        if narrow is not None:
            raise unread(
                files, format_of_tensors(files.tensors) or f"unknown: it stores {narrow.name[:100]} as {narrow.dtype}"
            )
        return True

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        weights = {name: one for name, one in files.tensors.items() if not _is_buffer(one)}
        tied = tied_output(weights, files.config)
        total = logical_elements(weights, tied)
        stored = sum(one.size for one in weights.values())
        facts = Quantization(
            format=self.name,
            method=None,
            bits=None,
            bits_per_weight=8 * stored / total if total else 0.0,
            group_size=None,
            granularity=None,
            symmetric=None,
            activation_bits=None,
            kv_cache_bits=None,
            desc_act=None,
            dtype=dtype_of(weights),
            quantized_parameters=0,
            total_parameters=total,
            size_bytes=files.size_bytes,
            producer=None,
            calibration_required=False,
            warnings=files.warnings + ((ON_GRID,) if lies_on_grid(weights) else ()),
        )
        shapes = {name: one.shape for name, one in weights.items()}
        structure = replace(structure_of_config(files.config, shapes), tied=tied is not None)
        return Inspection(facts, structure, is_language_model(files))


def _is_buffer(tensor: Tensor) -> bool:
    """Whether a tensor is a mask, a counter or a table of positions, by name and by what it holds."""
    if _BUFFER.search(tensor.name):
        return tensor.dtype in FLOATS or tensor.elements <= 1
    if tensor.size > _MAX_BUFFER_BYTES:
        return False
    if _MASK.search(tensor.name) and (tensor.dtype in {"BOOL", "U8"} or len(tensor.shape) in {0, 4}):
        return tensor.dtype in FLOATS or bool(np.all(np.asarray(tensor.stored()) <= 1))
    if _POSITIONS.search(tensor.name) and tensor.dtype in {"I64", "I32"}:
        return np.array_equal(np.asarray(tensor.stored()).reshape(-1), np.arange(tensor.elements))
    return False

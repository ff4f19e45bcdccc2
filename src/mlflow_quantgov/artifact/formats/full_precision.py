"""Full precision: float tensors and nothing else; a quantized model written back as floats is noticed."""

from __future__ import annotations

import numpy as np

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format, dtype_of
from mlflow_quantgov.artifact.quantization import Inspection, Quantization
from mlflow_quantgov.artifact.structure import structure_of_config
from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.artifact.tensors.safetensors import FLOATS, values
from mlflow_quantgov.errors import UnknownFormatError

ON_GRID = "on-k-bit-grid"
_GROUP = 32
_SAMPLED_MATRICES = 8
_SAMPLED_GROUPS = 256
_GRID_BITS = 4
_BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "position_ids")


class FullPrecision(Format):
    """All weights are floats, and no config claims otherwise."""

    name = "full-precision"

    def detect(self, files: ArtifactFiles) -> bool:
        """Only floats, and no claim of a quantization."""
        return not files.quantization_config and bool(files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        weights = {name: one for name, one in files.tensors.items() if not name.endswith(_BUFFERS)}
        narrow = next((one for one in weights.values() if one.dtype not in FLOATS), None)
        if narrow is not None:
            raise UnknownFormatError(
                f"{files.root.name} stores {narrow.name} as {narrow.dtype}, and no config says how to read it.",
                why="It is quantized in a format that is not known here, and is not full precision.",
                fix="quantgov inspect PATH of a GPTQ, AWQ, compressed-tensors, bitsandbytes, torchao or GGUF model",
            )
        total = sum(one.elements for one in weights.values())
        stored = sum(one.size for one in weights.values())
        facts = Quantization(
            format="full-precision",
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
            warnings=(ON_GRID,) if lies_on_grid(weights) else (),
        )
        shapes = {name: one.shape for name, one in weights.items()}
        return Inspection(facts, structure_of_config(files.config, shapes), is_language_model(files))


def is_language_model(files: ArtifactFiles) -> bool:
    """Whether tensors and config are those of a language model."""
    named = [str(one) for one in files.config.get("architectures") or ()]
    if any(one.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")) for one in named):
        return True
    return not named and any("embed_tokens" in name or "wte" in name for name in files.tensors)


def lies_on_grid(tensors: dict[str, Tensor]) -> bool:
    """Whether the linear layers' weights take at most 2^k values per group: a k-bit model written back as floats.

    In a group of 32 independent weights, 2^4 or fewer distinct values are practically impossible, while weights that
    were dequantized from 4 bit (any group size that is a multiple of 32) never show more. Wider grids are found where
    whole rows share a scale: a row then has at most 2^8 values although it is much longer.
    """
    matrices = [one for name, one in sorted(tensors.items()) if len(one.shape) == 2 and "norm" not in name]
    matrices = [one for one in matrices if one.shape[1] % _GROUP == 0 and one.shape[1] > _GROUP and "embed" not in one.name]
    step = max(1, len(matrices) // _SAMPLED_MATRICES)
    sampled = matrices[::step][:_SAMPLED_MATRICES]
    return bool(sampled) and sum(_on_grid(one) for one in sampled) * 2 > len(sampled)


def _on_grid(tensor: Tensor) -> bool:
    rows = values(tensor)[: max(1, _SAMPLED_GROUPS * _GROUP // tensor.shape[1])]
    groups = np.sort(rows.reshape(-1, _GROUP)[:_SAMPLED_GROUPS], axis=1)
    distinct = 1 + (np.diff(groups, axis=1) != 0).sum(axis=1)
    if np.mean(distinct <= 2**_GRID_BITS) > 0.95 and np.any(distinct > 1):
        return True
    if tensor.shape[1] < 1024:
        return False
    whole = np.sort(rows, axis=1)
    return bool(np.mean(1 + (np.diff(whole, axis=1) != 0).sum(axis=1) <= 256) > 0.95)

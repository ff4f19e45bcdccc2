"""Float8 as transformers, fbgemm, vLLM and DeepSeek write it, and what modelopt writes (float8 and NVFP4)."""

from __future__ import annotations

from math import prod
from typing import Any

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble
from mlflow_quantgov.artifact.formats.gptq import producer_of
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.scaled import (
    ACTIVATION_SCALES,
    CACHE_SCALES,
    FLOAT8,
    Scaled,
    is_nvfp4,
    read_scaled,
    scaled_matrices,
)
from mlflow_quantgov.artifact.quantization import Inspection

_ROUNDING = frozenset({"fp8", "finegrained_fp8", "fbgemm_fp8", "mxfp8"})
_MODELOPT = frozenset({"modelopt", "modelopt_fp8", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8"})
_STATIC_PARTS = (*ACTIVATION_SCALES, *CACHE_SCALES, ".pre_quant_scale")


class Fp8(Format):
    """Float8 matrices with a scale per block, channel or tensor."""

    name = "fp8"

    @property
    def methods(self) -> frozenset[str]:
        """Values of `quant_method` of transformers, vLLM and modelopt."""
        return _ROUNDING | _MODELOPT

    def detect(self, files: ArtifactFiles) -> bool:
        """A float8 matrix with a scale, whatever else is there."""
        return any(one.weight.dtype in FLOAT8 and one.scale is not None for one in scaled_matrices(files))

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        return read_floats(files, self.name)


class Nvfp4(Format):
    """4-bit floats with float8 scales, as modelopt writes them; some matrices beside them may be float8."""

    name = "nvfp4"

    @property
    def methods(self) -> frozenset[str]:
        """Values of `quant_method`."""
        return _MODELOPT | {self.name}

    def detect(self, files: ArtifactFiles) -> bool:
        """At least half of the scaled matrices are NVFP4."""
        kinds = [is_nvfp4(one) for one in scaled_matrices(files)]
        return any(kinds) and 2 * sum(kinds) >= len(kinds)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        return read_floats(files, self.name)


def read_floats(files: ArtifactFiles, container: str) -> Inspection:
    """Facts of a model of scaled narrow floats.

    Args:
        files: The artifact.
        container: Name of the format.

    Raises:
        ArtifactError: A scale does not fit its matrix, or the config says something else than the tensors.
    """
    layers, matrices, block = Layers(), list(scaled_matrices(files)), block_of(files)
    for one in matrices:
        layer, granularity = read_scaled(files, one, block)
        stored = [one.name, *one.beside, *([one.scale.name] if one.scale else [])]
        layers.add(layer, stored, granularity, (one.name, layer.shape))
    layers.used.update(name for name in files.tensors if name.endswith(_STATIC_PARTS))
    static = any(name.endswith(_STATIC_PARTS) for name in files.tensors)
    _check(files, layers, matrices, block)
    method = files.claimed_method
    return assemble(
        files,
        layers,
        format=container,
        method=method,
        symmetric=True,
        producer=producer(files),
        # These tools only round; what modelopt does before it rounds leaves no trace.
        calibration_required=True if static else False if method in _ROUNDING else None,
        activation_bits=_activation_bits(files, method, container),
        kv_cache_bits=_cache_bits(files),
        claims=Claims(),
    )


def block_of(files: ArtifactFiles) -> tuple[int, int] | None:
    """Rows and columns of a block by the config; None where it names none."""
    for _, claim in files.claims:
        size = claim.get("weight_block_size")
        if isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**31 for side in size):
            return size[0], size[1]
    return None


def _check(files: ArtifactFiles, layers: Layers, matrices: list[Scaled], block: tuple[int, int] | None) -> None:
    """Refuse a config that names other blocks, another float8, another width or static scales that are not there."""
    for one, layer in zip(matrices, layers.found, strict=True):
        if block and layer.bits == 8 and one.scale is not None and not _fits(layer.shape, one.scale.shape, block):
            found = f"group size {layer.group_size}, scales of shape {list(one.scale.shape)}"
            raise files.contradiction(
                "config.json", f"blocks of {block[0]}x{block[1]}", f"{found} (in {layer.name[:100]})"
            )
    kinds = {FLOAT8.get(one.weight.dtype) for one in matrices} - {None}
    grouped = next((layer for layer in layers.found if layer.bits == 8 and layer.group_size), None)
    for place, claim in files.claims:
        denied = "weight_block_size" in claim and claim["weight_block_size"] is None
        if grouped and denied and claim.get("quant_method") == "fp8":
            found = f"blocks of {grouped.group_size} (in {grouped.name[:100]})"
            raise files.contradiction(place, "no blocks (weight_block_size null)", found)
        fmt = claim.get("fmt")
        if fmt in FLOAT8.values() and kinds and fmt not in kinds:
            raise files.contradiction(place, str(fmt), " and ".join(sorted(str(kind) for kind in kinds)))
        width = _width_of(_algorithm(claim))
        if width and width not in {layer.bits for layer in layers.found}:
            raise files.contradiction(place, f"{_algorithm(claim)} ({width} bit)", f"{layers.found[0].bits:g} bit")
        scheme = claim.get("activation_scheme")
        if scheme == "static" and not any(name.endswith(ACTIVATION_SCALES) for name in files.tensors):
            raise files.contradiction(place, "static activation scales", "none")


def _fits(shape: tuple[int, ...], scales: tuple[int, ...], block: tuple[int, int]) -> bool:
    """Whether blocks of that size give so many scales."""
    down, across = -(-shape[-2] // block[0]), -(-shape[-1] // block[1])
    return scales[-2:] == (down, across) or (prod(scales) == 1 and down == across == 1)


def producer(files: ArtifactFiles) -> str | None:
    """`modelopt 0.47.0`, where modelopt noted it."""
    for _, claim in files.claims:
        noted = claim.get("producer")
        if isinstance(noted, dict) and isinstance(noted.get("name"), str):
            return " ".join(filter(None, (noted["name"], str(noted.get("version") or ""))))
    return producer_of(files)


def _settings(claim: dict[str, Any]) -> dict[str, Any]:
    """Settings of modelopt: below `quantization` in its own file, at the top in config.json."""
    inner = claim.get("quantization")
    return inner if isinstance(inner, dict) else claim


def _algorithm(claim: dict[str, Any]) -> str | None:
    found = _settings(claim).get("quant_algo")
    return found if isinstance(found, str) else None


def _width_of(algorithm: str | None) -> int | None:
    """Weight width that modelopt's name of an algorithm tells; None where it mixes several."""
    upper = (algorithm or "").upper()
    if "MIXED" in upper:
        return None
    return 4 if "NVFP4" in upper or upper.startswith("W4") else 8 if upper.startswith(("FP8", "MXFP8", "W8")) else None


def _activation_bits(files: ArtifactFiles, method: str | None, container: str) -> int | None:
    claimed = []
    for _, claim in files.claims:
        groups = claim.get("config_groups")
        for group in groups.values() if isinstance(groups, dict) else ():
            scheme = group.get("input_activations") if isinstance(group, dict) else None
            width = scheme.get("num_bits") if isinstance(scheme, dict) else None
            if type(width) is int and 0 < width <= 16:
                claimed.append(width)
    if claimed:
        return min(claimed)
    # transformers' and vLLM's float8 layers always round the activations too.
    if any(name.endswith(ACTIVATION_SCALES) for name in files.tensors):
        return 4 if container == "nvfp4" else 8
    return 8 if method in _ROUNDING else None


def _cache_bits(files: ArtifactFiles) -> int | None:
    """Width of the KV cache by modelopt's config; 8 where only scales tell that it is narrow."""
    for _, claim in files.claims:
        scheme, algorithm = claim.get("kv_cache_scheme"), _settings(claim).get("kv_cache_quant_algo")
        width = scheme.get("num_bits") if isinstance(scheme, dict) else None
        if type(width) is int and 0 < width <= 16:
            return width
        if isinstance(algorithm, str) and algorithm:
            return 4 if "4" in algorithm else 8
    return 8 if any(name.endswith(CACHE_SCALES[:3]) for name in files.tensors) else None

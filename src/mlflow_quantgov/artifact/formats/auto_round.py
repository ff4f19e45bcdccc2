"""AutoRound: packs like GPTQ, AWQ or compressed-tensors, or as float8, and says so only in the config.

`packing_format` is `auto_round:auto_gptq` (zero points minus one), `auto_round` or `auto_round:gptqmodel` (as they are),
`auto_round:auto_awq`, `auto_round:llm_compressor` (MXFP4, MXFP8, NVFP4), `auto_round:fp8`, `auto_round:fp8_static`.
Source: auto_round/export/export_to_autoround and export/formats/backends of auto-round 0.16.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_quantgov.artifact.formats import awq_layouts, compressed_tensors, gptq
from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble
from mlflow_quantgov.artifact.formats.fp8 import block_of
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.scaled import ACTIVATION_SCALES, read_scaled, scaled_matrices
from mlflow_quantgov.artifact.quantization import Inspection

_PACKED = (".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv")
_AS_THEY_ARE = {"auto_round", "auto_round:gptqmodel", "auto_round:exllamav2", "auto_round:exllamav2:gptqmodel"}
_STATIC = (*ACTIVATION_SCALES, ".input_global_scale", ".act_scales", ".w_bf16_to_fp8_scale")


class AutoRound(Format):
    """Reads each matrix as the packing that it has; that AutoRound chose the codes is what the config says."""

    name = "auto-round"

    @property
    def methods(self) -> frozenset[str]:
        """Values of `quant_method`, older spellings included."""
        return frozenset({"auto-round", "auto_round", "autoround", "intel/auto-round"})

    def detect(self, files: ArtifactFiles) -> bool:
        """Packed matrices whose config names AutoRound; the tensors alone are those of other formats."""
        return files.claimed_method in self.methods and any(name.endswith(_PACKED) for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers = Layers()
        claims = Claims.of(files, ("bits",), () if block_of(files) else ("group_size",), per_layer="extra_config")
        centred = [
            *_gptq(files, layers, claims),
            *_awq(files, layers),
            *_compressed(files, layers),
            *_float8(files, layers),
        ]
        symmetric = all(centred)
        for place, claim in files.claims:
            if claim.get("sym") is True and not symmetric and not claims.overrides:
                raise files.contradiction(place, "symmetric quantization", "zero points off the middle")
        layers.used.update(name for name in files.tensors if name.endswith(_STATIC))
        return assemble(
            files,
            layers,
            format=self.name,
            method="auto-round",
            symmetric=symmetric,
            producer=_producer(files),
            # It tunes on sample texts; with `iters=0` it only rounds, and the file does not say which.
            calibration_required=True if any(name.endswith(_STATIC) for name in files.tensors) else None,
            activation_bits=_activation_bits(files),
            claims=claims,
        )


def stores_zeros_less_one(files: ArtifactFiles) -> bool:
    """Whether zero points of GPTQ's packing are those of its version 1."""
    return not any(str(claim.get("packing_format")) in _AS_THEY_ARE for _, claim in files.claims)


def _gptq(files: ArtifactFiles, layers: Layers, claims: Claims) -> Iterator[bool]:
    """Matrices packed along their input; whether each is symmetric."""
    minus_one = stores_zeros_less_one(files)
    sizes = [size for _, size in claims.group_size if size]
    for stem in _stems(files, ".qweight"):
        if awq_layouts.layout_of(files, stem) != "gemm":
            layer = gptq.read_layer(files, stem, sizes)
            layers.add(layer.facts, [f"{stem}.{part}" for part in gptq.PARTS if f"{stem}.{part}" in files.tensors])
            yield gptq.is_symmetric([layer], minus_one=minus_one)


def _awq(files: ArtifactFiles, layers: Layers) -> Iterator[bool]:
    """Matrices packed along their output; whether each is symmetric."""
    for stem in _stems(files, ".qweight"):
        if awq_layouts.layout_of(files, stem) == "gemm":
            layer = awq_layouts.read_layer(files, stem)
            layers.add(layer, [f"{stem}.{part}" for part in awq_layouts.PARTS if f"{stem}.{part}" in files.tensors])
            yield awq_layouts.is_centred(files, layer)


def _compressed(files: ArtifactFiles, layers: Layers) -> Iterator[bool]:
    """Matrices in the layouts of compressed-tensors, float8 with static scales among them."""
    for stem in _stems(files, ".weight_scale"):
        one = compressed_tensors.gather(files, stem)
        layer, granularity = compressed_tensors.read_layer(files, one, set())
        layers.add(layer, [tensor.name for tensor in one.tensors.values()], granularity)
        yield not compressed_tensors.has_offset(one, layer)


def _float8(files: ArtifactFiles, layers: Layers) -> Iterator[bool]:
    """Float8 matrices with scales per block."""
    for one in scaled_matrices(files):
        if one.scale is not None and one.scale.name.endswith("_scale_inv"):
            layer, granularity = read_scaled(files, one, block_of(files))
            layers.add(layer, [one.name, one.scale.name, *one.beside], granularity)
            yield True


def _stems(files: ArtifactFiles, suffix: str) -> list[str]:
    return sorted(name.removesuffix(suffix) for name in files.tensors if name.endswith(suffix))


def _producer(files: ArtifactFiles) -> str | None:
    version = next((claim["autoround_version"] for _, claim in files.claims if claim.get("autoround_version")), None)
    return f"auto-round {version}" if isinstance(version, str) else None


def _activation_bits(files: ArtifactFiles) -> int | None:
    """Width of the activations, which only the config names; 16 and more is no quantization."""
    for _, claim in files.claims:
        width = claim.get("act_bits")
        if type(width) is int and 0 < width < 16:
            return width
    return None

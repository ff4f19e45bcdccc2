"""compressed-tensors, as llm-compressor writes it: `weight_packed` or narrow `weight`, with `weight_scale`."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format, Layers, assemble
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors.safetensors import values
from mlflow_quantgov.errors import ArtifactError

WORD = 32
_PARTS = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
          "weight_global_scale", "input_scale", "input_zero_point", "input_global_scale")  # fmt: skip


class CompressedTensors(Format):
    """Packed integers, int8, float8 or float4, with a scale beside each matrix."""

    name = "compressed-tensors"

    def detect(self, files: ArtifactFiles) -> bool:
        """A scale beside a packed or narrow matrix."""
        return files.claimed_method == "compressed-tensors" or (
            files.claimed_method is None and any(name.endswith(".weight_packed") for name in files.tensors)
        )

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers = Layers()
        for name in sorted(files.tensors):
            if name.endswith(".weight_scale"):
                stem = name.removesuffix(".weight_scale")
                used = [f"{stem}.{part}" for part in _PARTS if f"{stem}.{part}" in files.tensors]
                layers.add(self._layer(files, stem), *used)
        config = files.quantization_config
        groups = [group for group in (config.get("config_groups") or {}).values() if isinstance(group, dict)]
        claimed = {(group.get("weights") or {}).get("num_bits") for group in groups}
        return assemble(
            files,
            layers,
            format="compressed-tensors",
            method=None,
            symmetric=not any(f"{layer.name}.weight_zero_point" in files.tensors for layer in layers.found),
            producer=f"compressed-tensors {config['version']}" if config.get("version") else None,
            # Rounding and GPTQ leave the same tensors behind; static input scales always need data.
            calibration_required=True if any(name.endswith("input_scale") for name in files.tensors) else None,
            activation_bits=_activation_bits(groups),
            desc_act=any(name.endswith(".weight_g_idx") for name in files.tensors) or None,
            claimed_bits=claimed.pop() if len(claimed) == 1 else None,
        )

    def _layer(self, files: ArtifactFiles, stem: str) -> LayerQuantization:
        scale = files.tensors[f"{stem}.weight_scale"]
        packed, plain = files.tensors.get(f"{stem}.weight_packed"), files.tensors.get(f"{stem}.weight")
        if packed is not None and packed.dtype == "U8":
            out_features, half = packed.shape
            return LayerQuantization(stem, 4, (half * 2) // scale.shape[-1], (out_features, half * 2), "float4")
        if packed is not None and f"{stem}.weight_shape" in files.tensors:
            out_features, in_features = (int(side) for side in values(files.tensors[f"{stem}.weight_shape"]))
            bits = packed.shape[1] * WORD // in_features if in_features else 0
            if packed.shape[0] == out_features and bits:
                return LayerQuantization(stem, bits, _group(scale.shape, in_features), (out_features, in_features), "int")
        if plain is not None and len(plain.shape) == 2 and plain.dtype in {"I8", "F8_E4M3", "F8_E5M2"}:
            kind = "int" if plain.dtype == "I8" else "float8"
            return LayerQuantization(stem, 8, _group(scale.shape, plain.shape[1]), plain.shape, kind)
        raise ArtifactError(
            f"The layer {stem} of {files.root.name} has a scale and no packed or narrow weight that fits it.",
            why="Width and group size are read from the shapes of its tensors.",
            fix="compress it again with llm-compressor",
        )


def _group(scale: tuple[int, ...], in_features: int) -> int | None:
    groups = scale[-1] if len(scale) == 2 else 1
    return None if groups <= 1 else in_features // groups


def _activation_bits(groups: list[dict[str, Any]]) -> int | None:
    widths = [(group.get("input_activations") or {}).get("num_bits") for group in groups]
    known = [width for width in widths if isinstance(width, int)]
    return min(known) if known else None

"""How compressed-tensors' config says that weights lie in the file, against how they lie there.

Source: `CompressionFormat` and `QuantizationStrategy` of compressed_tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.quantization import LayerQuantization

_LAYOUTS = {
    "pack-quantized": {"packed int"}, "int-quantized": {"int"}, "float-quantized": {"float8"},
    "naive-quantized": {"int", "float8"}, "nvfp4-pack-quantized": {"nvfp4"}, "mxfp4-pack-quantized": {"mxfp4"},
    "mxfp8-quantized": {"float8"},
}  # fmt: skip
"""`format` to the layouts that it is."""
_STRATEGIES = {"tensor": "tensor", "channel": "channel", "group": "group", "tensor_group": "group"}


class Stored(Protocol):
    """The stored tensors of one matrix."""

    @property
    def tensors(self) -> Mapping[str, Any]:
        """By what stands after the stem."""


def check_scheme(
    files: ArtifactFiles,
    schemes: list[dict[str, Any]],
    layers: Iterable[tuple[LayerQuantization, str, Stored]],
) -> None:
    """Refuse a config that names another layout than every matrix has, or another sharing of scales.

    Args:
        files: The artifact.
        schemes: What the config says of weights, by group of layers.
        layers: Matrices with their granularity and tensors.

    Raises:
        ArtifactError: It says something else than the tensors.
    """
    named = [one for one in _formats(files.quantization_config) if one and one <= _LAYOUTS.keys()]
    strategies = {str(one.get("strategy")) for one in schemes}
    shared = {_STRATEGIES[one] for one in strategies} if strategies and strategies <= _STRATEGIES.keys() else set()
    for layer, granularity, one in layers:
        layout = f"packed {layer.type}" if layer.type == "int" and "weight_packed" in one.tensors else str(layer.type)
        for formats in named:
            if not any(layout in _LAYOUTS[one] for one in formats):
                found = f"{layout} codes (in {layer.name[:200]})"
                raise files.contradiction("config.json", " or ".join(sorted(formats)), found)
        # A single row has one scale whatever it is called, and so has a row that is no longer than a group.
        alike = layer.shape[-2] == 1 or (granularity == "channel" and "group" in shared)
        if shared and granularity not in shared and not alike:
            raise files.contradiction(
                "config.json",
                f"scales per {' or '.join(sorted(shared))}",
                f"one per {granularity} (in {layer.name[:200]})",
            )


def _formats(config: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Formats of the groups, where each names one, and that of the whole."""
    groups = config.get("config_groups")
    own = [one.get("format") for one in (groups.values() if isinstance(groups, dict) else ()) if isinstance(one, dict)]
    return {str(one) for one in own}, {str(config.get("format"))}

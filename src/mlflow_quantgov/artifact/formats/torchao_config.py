"""What a torchao configuration says of the weights, against the tensor subclasses that are stored.

Source: torchao.quantization.quant_api and torchao.core.config (`config_to_dict`).
"""

from __future__ import annotations

import re
from typing import Any

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles

_WEIGHT_KIND = re.compile(r"(Int|Float)\d+Weight")
_NARROW = re.compile(r"(?:torch\.)?u?int(\d)")
_FLOAT8 = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
_FAMILIES = {"Int": ("Int",), "Float": ("Float8",), "NVFP4": ("NVFP4",), "MX": ("MX",)}
"""Beginnings of the subclasses that a family of configurations makes."""


def config_of(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class name and fields of the configuration for all layers; empty where layers have their own.

    Args:
        config: `quantization_config`.
    """
    default = _default(config)
    if not isinstance(default, dict) or not isinstance(default.get("_type"), str):
        return "", {}
    fields = default.get("_data")
    return default["_type"], fields if isinstance(fields, dict) else {}


def method_of(config: dict[str, Any]) -> str | None:
    """Name of the configuration, as the config gives it, in old configs without fields.

    Args:
        config: `quantization_config`.
    """
    default = _default(config)
    name = default.get("_type") if isinstance(default, dict) else default
    return name if isinstance(name, str) and name else None


def claimed_groups(config: dict[str, Any]) -> tuple[tuple[str, int | None], ...]:
    """The group size that a configuration names, if it does."""
    _, fields = config_of(config)
    shared = [fields.get(key) for key in ("granularity", "weight_granularity")]
    sizes = [one["_data"].get("group_size") for one in shared if isinstance(one, dict) and _is_group(one)]
    return tuple(("config.json", size) for size in sizes if type(size) is int and size > 0)


def check_kinds(files: ArtifactFiles, kinds: set[str], dtypes: set[str], widths: set[float], activations: bool) -> None:
    """Refuse a configuration that makes other subclasses, other codes, or leaves activations alone that are quantized.

    Args:
        files: The artifact.
        kinds: Subclasses that were found.
        dtypes: Storage types of their codes.
        widths: Widths that were found.
        activations: Whether activations are quantized.

    Raises:
        ArtifactError: It says something else than the tensors.
    """
    name, fields = config_of(files.quantization_config)
    family = _family(name)
    if family and not any(kind.startswith(_FAMILIES[family]) for kind in kinds):
        raise files.contradiction("config.json", name[:100], ", ".join(sorted(kinds)))
    if "WeightOnly" in name and activations:
        raise files.contradiction("config.json", f"weights only ({name[:100]})", "quantized activations")
    dtype = fields.get("weight_dtype")
    stored = str(dtype.get("_data")) if isinstance(dtype, dict) else ""
    narrow, float8 = _NARROW.fullmatch(stored), _FLOAT8.get(stored.removeprefix("torch."))
    if narrow and float(narrow[1]) not in widths:
        raise files.contradiction("config.json", stored, spelled(widths))
    if float8 and "Float8Tensor" in kinds and float8 not in dtypes:
        raise files.contradiction("config.json", stored, ", ".join(sorted(dtypes)))


def spelled(widths: set[float]) -> str:
    """Widths in words."""
    return ", ".join(f"{width:g} bit" for width in sorted(widths))


def _default(config: dict[str, Any]) -> Any:
    """The configuration for all layers."""
    quant_type = config.get("quant_type")
    return quant_type.get("default") if isinstance(quant_type, dict) else quant_type


def _family(name: str) -> str | None:
    for one in ("NVFP4", "MX"):
        if name.startswith(one):
            return one
    found = _WEIGHT_KIND.search(name)
    return found[1] if found else None


def _is_group(one: dict[str, Any]) -> bool:
    return one.get("_type") == "PerGroup" and isinstance(one.get("_data"), dict)

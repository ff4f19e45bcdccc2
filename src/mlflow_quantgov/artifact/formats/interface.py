"""What a reader gets, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization, Quantization
from mlflow_quantgov.artifact.structure import structure_of_config
from mlflow_quantgov.artifact.tensors import Tensor
from mlflow_quantgov.errors import ArtifactError


@dataclass(frozen=True)
class ArtifactFiles:
    """Headers of everything in a model folder."""

    root: Path
    config: dict[str, Any]
    """`config.json`, or empty."""
    tensors: dict[str, Tensor]
    """Of all safetensors files."""
    metadata: dict[str, str]
    """Header texts of the safetensors files."""
    size_bytes: int
    """Of all files."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other small JSON files by name (`quantize_config.json`, `adapter_config.json`)."""

    @property
    def quantization_config(self) -> dict[str, Any]:
        """The config's own claim, or empty."""
        found = self.config.get("quantization_config") or self.extra.get("quantize_config.json") or {}
        return found if isinstance(found, dict) else {}

    @property
    def claimed_method(self) -> str | None:
        """`quant_method` as the config claims it, in lower case."""
        claimed = self.quantization_config.get("quant_method")
        return str(claimed).lower() if claimed else None


class Format(ABC):
    """Reads one container."""

    name: str

    @abstractmethod
    def detect(self, files: ArtifactFiles) -> bool:
        """Whether the tensors (not only the config) are of this container."""

    @abstractmethod
    def read(self, files: ArtifactFiles) -> Inspection:
        """Exact facts from tensors and headers.

        Raises:
            ArtifactError: The tensors contradict each other or the config.
        """


@dataclass
class Layers:
    """Collects quantized matrices while a reader walks over the tensors."""

    found: list[LayerQuantization] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Names of the stored tensors that make up the quantized matrices."""

    def add(self, layer: LayerQuantization, *tensors: str) -> None:
        """Add a matrix and the stored tensors that it consists of."""
        self.found.append(layer)
        self.used.update(tensors)


def majority(values: list[Any]) -> Any:
    """The most frequent value; the smaller one where two are equally frequent."""
    return min(set(values), key=lambda value: (-values.count(value), str(value))) if values else None


def assemble(
    files: ArtifactFiles,
    layers: Layers,
    *,
    format: str,
    method: str | None,
    symmetric: bool | None,
    producer: str | None,
    calibration_required: bool | None,
    activation_bits: int | None = None,
    desc_act: bool | None = None,
    claimed_bits: float | None = None,
    granularity: str | None = None,
    warnings: tuple[str, ...] = (),
) -> Inspection:
    """Facts of a safetensors model with quantized matrices.

    Raises:
        ArtifactError: No quantized matrix was found, or the config claims another width than the tensors have.
    """
    if not layers.found:
        raise ArtifactError(
            f"{files.root.name} claims the format {format}, and none of its tensors is quantized.",
            why="What the config says is not what would run.",
            fix="quantize it again, or remove quantization_config from config.json",
        )
    sizes = {layer.name: _product(layer.shape) for layer in layers.found}
    # Most quantized *weights* decide, so a wide matrix counts for more than a narrow one.
    weight_of: dict[float, int] = {}
    for layer in layers.found:
        weight_of[layer.bits] = weight_of.get(layer.bits, 0) + sizes[layer.name]
    bits = max(weight_of, key=lambda width: (weight_of[width], -width))
    if claimed_bits is not None and len(weight_of) == 1 and float(claimed_bits) != bits:
        raise ArtifactError(
            f"The config of {files.root.name} claims {claimed_bits:g} bit, its tensors have {bits:g} bit.",
            why="Facts come from the tensors; a config that disagrees with them is an error, not a preference.",
            fix="quantize it again with the tool that wrote it",
        )
    group = majority([layer.group_size for layer in layers.found])
    plain = {name: tensor for name, tensor in files.tensors.items() if name not in layers.used}
    quantized = sum(sizes.values())
    total = quantized + sum(tensor.elements for tensor in plain.values())
    stored = sum(tensor.size for tensor in files.tensors.values())
    shapes = {f"{layer.name}.weight": layer.shape for layer in layers.found}
    shapes |= {name: tensor.shape for name, tensor in plain.items()}
    facts = Quantization(
        format=format,
        method=method,
        bits=bits,
        bits_per_weight=8 * stored / total,
        group_size=group,
        granularity=granularity or ("group" if group else "channel"),
        symmetric=symmetric,
        activation_bits=activation_bits,
        kv_cache_bits=None,
        desc_act=desc_act,
        dtype=dtype_of(plain),
        quantized_parameters=quantized,
        total_parameters=total,
        size_bytes=files.size_bytes,
        producer=producer,
        calibration_required=calibration_required,
        layers=tuple(layers.found),
        warnings=warnings + _mixed(weight_of),
    )
    return Inspection(facts, structure_of_config(files.config, shapes))


def dtype_of(tensors: dict[str, Tensor]) -> str | None:
    """Storage type of most unquantized elements, as torch spells it."""
    elements: dict[str, int] = {}
    for tensor in tensors.values():
        elements[tensor.dtype] = elements.get(tensor.dtype, 0) + tensor.elements
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    floats = {dtype: count for dtype, count in elements.items() if dtype in names}
    return names[max(floats, key=lambda dtype: floats[dtype])] if floats else None


def _mixed(weight_of: dict[float, int]) -> tuple[str, ...]:
    if len(weight_of) < 2:
        return ()
    parts = ", ".join(f"{width:g} bit: {count:,} weights" for width, count in sorted(weight_of.items()))
    return (f"mixed-widths: {parts}",)


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for side in shape:
        result *= side
    return result

"""What inspection finds: the facts that every floor above builds on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mlflow_quantgov.artifact.settings import Settings


@dataclass(frozen=True)
class LayerQuantization:
    """One quantized weight matrix."""

    name: str
    """Name as the artifact spells it, without the suffix of the packed tensor."""
    bits: float
    """Width of one stored weight code, in bits."""
    group_size: int | None
    """Weights that share a scale; None where a whole channel or tensor does."""
    shape: tuple[int, ...]
    """Logical shape, [out, in]."""
    type: str | None = None
    """The container's own name of the storage type (`Q4_K`, `nf4`), where it has one."""
    block_rows: int = 1
    """Rows that share the scales of a group; above 1 where a scale serves a block of rows and columns."""


@dataclass(frozen=True)
class Quantization:
    """The quantization of one artifact, as `quantgov inspect --json` prints it (see docs/reference)."""

    format: str
    """Name of the container: `full-precision`, `gptq`, `awq`, `gguf`, ..."""
    method: str | None
    bits: float | None
    bits_per_weight: float
    """All stored bits of the file's tensors over all logical parameters."""
    group_size: int | None
    granularity: str | None
    """`group`, `channel`, `tensor` or None for full precision."""
    symmetric: bool | None
    activation_bits: int | None
    kv_cache_bits: int | None
    desc_act: bool | None
    dtype: str | None
    """Storage type of the unquantized weights (`bfloat16`, ...)."""
    quantized_parameters: int
    total_parameters: int
    size_bytes: int
    producer: str | None
    calibration_required: bool | None
    layers: tuple[LayerQuantization, ...] = ()
    warnings: tuple[str, ...] = ()
    calibration_data: tuple[str, ...] = ()
    """Names of data sets that the producer noted in the artifact's metadata."""

    @property
    def is_quantized(self) -> bool:
        """Whether the container stores quantized weights."""
        return self.quantized_parameters > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, layers included."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Quantization:
        """Read what `to_dict` wrote; unknown keys are ignored, so that newer files stay readable."""
        known = {key: value for key, value in data.items() if key in cls.__dataclass_fields__}
        known["layers"] = tuple(
            LayerQuantization(
                name=layer["name"],
                bits=layer["bits"],
                group_size=layer["group_size"],
                shape=tuple(layer["shape"]),
                type=layer.get("type"),
                block_rows=layer.get("block_rows", 1),
            )
            for layer in known.get("layers", ())
        )
        for name in ("warnings", "calibration_data"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


@dataclass(frozen=True)
class Structure:
    """The architecture of a model, in words that two containers of the same model share."""

    architecture: str | None
    """Model type as Hugging Face configs spell it (`llama`), read from config or container metadata."""
    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    num_kv_heads: int | None = None
    vocab_size: int | None = None
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Canonical weight name (Hugging Face spelling, where a map is known) to logical shape."""
    unnamed: tuple[tuple[int, ...], ...] = ()
    """Shapes of weight matrices whose names the container lost, sorted."""
    tied: bool = False
    """Whether an output matrix that is stored repeats the embedding, by config or bytes: leaving it out loses nothing."""
    settings: Settings = field(default_factory=Settings)
    """What the config says of the computation beside the weights."""


@dataclass(frozen=True)
class Inspection:
    """Everything that the bytes of one artifact say."""

    quantization: Quantization
    structure: Structure
    is_language_model: bool = True
    """False where no language-model weights were found (an ONNX classifier, say)."""

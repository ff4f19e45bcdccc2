"""One row of the kernel table: which weights on which hardware it is about, and what it says of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from math import prod
from typing import Annotated, Any, Literal

from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.evidence.predicates.kernels import Support
from mlflow_quantgov.evidence.targets import COMPUTE_CAPABILITIES, CpuFlag, Device, Target
from mlflow_quantgov.evidence.version_ranges import Specifier, admits, lies_within

Text = Annotated[str, Field(min_length=1, max_length=1000)]
CHANNEL = -1
"""Group size of one scale per channel or tensor."""
UNQUANTIZED = 16
"""Bits of activations that nobody rounds."""


@dataclass(frozen=True)
class Weights:
    """Matrices of one model that a kernel sees as alike."""

    format: str
    method: str | None
    type: str | None
    """The container's own name of the storage type; None where it has none."""
    bits: float | None
    group_size: int
    """`CHANNEL` where a whole channel or tensor shares a scale."""
    granularity: str | None
    symmetric: bool | None
    desc_act: bool | None
    activation_bits: int
    dtype: str | None
    shape: tuple[int, int] | None = None
    """[out, in]; None where it is not known."""
    count: int = 1
    """Weights, to tell how much of the model they are."""


def weights_of(found: Quantization) -> Iterator[Weights]:
    """The kinds of matrices of a model, each with the number of its weights; one without shape for what lists no layers."""
    whole = Weights(
        format=found.format,
        method=found.method,
        type=found.method if found.format == "gguf" else None,
        bits=found.bits,
        group_size=CHANNEL if found.group_size is None else found.group_size,
        granularity=found.granularity,
        symmetric=found.symmetric,
        desc_act=found.desc_act,
        activation_bits=found.activation_bits or UNQUANTIZED,
        dtype=found.dtype,
    )
    kinds: dict[Weights, int] = {}
    for layer in found.layers:
        # Experts are stacked before the two dimensions of a product.
        shape = (layer.shape[-2], layer.shape[-1]) if len(layer.shape) >= 2 else None
        group = CHANNEL if layer.group_size is None else layer.group_size
        # A group within a model of channels, or the other way round, is one by its own size.
        granularity = found.granularity if group == whole.group_size else ("channel" if group == CHANNEL else "group")
        kind = replace(
            whole, type=layer.type, bits=layer.bits, group_size=group, granularity=granularity, shape=shape, count=0
        )
        kinds[kind] = kinds.get(kind, 0) + prod(layer.shape)
    if not kinds:
        yield whole
    for kind, count in kinds.items():
        yield replace(kind, count=count)


class Row(BaseModel):
    """One sourced fact. A condition that is left out matches anything; the first row that matches counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    formats: tuple[str, ...] = Field(min_length=1)
    """Containers as `quantgov inspect` names them; `*` for all."""
    types: tuple[str, ...] = ()
    """Globs on the storage type of the weights (`Q4_K`, `nf4`)."""
    methods: tuple[str, ...] = ()
    """Globs on the method that inspection found (`Int8WeightOnlyConfig`)."""
    bits: tuple[float, ...] = ()
    group_sizes: tuple[int, ...] = ()
    """Weights that share a scale; -1 stands for one scale per channel or tensor."""
    granularities: tuple[Literal["group", "channel", "tensor"], ...] = ()
    symmetric: bool | None = None
    desc_act: bool | None = None
    """Act-order."""
    activation_bits: tuple[int, ...] = ()
    """16 stands for activations that nobody rounds."""
    dtypes: tuple[str, ...] = ()
    """Types of the unquantized weights, in which activations are computed."""
    in_multiple: int | None = Field(None, ge=2)
    """Inputs of each matrix are a multiple of it."""
    out_multiple: int | None = Field(None, ge=2)
    devices: tuple[Device, ...] = ()
    architectures: tuple[str, ...] = ()
    """As targets spell them: `x86_64`, `hopper`, `cdna3`."""
    compute_capability: Specifier = ""
    """Of NVIDIA GPUs, as a range: `>=7.5,<9`."""
    cpu_flags: tuple[CpuFlag, ...] = ()
    """Instruction sets that the CPU must all have."""
    versions: Specifier = ""
    """Versions of the runtime that the source speaks of; empty where it sets no bound."""
    support: Support
    kernel: Text | None = None
    """In words."""
    expects: tuple[Text, ...] = ()
    """Globs of which the probe's kernel must match one; empty where nobody has seen it."""
    needs: tuple[Text, ...] = ()
    """What has to be installed or set beside the runtime."""
    seen: Literal["probed", "table"]
    """`probed`: the live probe and the table are compared by a test; `table`: it cannot run where this was written, and rests
    on its source alone."""
    source: Text
    read_on: date
    notes: Text | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Row:
        if self.compute_capability and self.devices != ("cuda",):
            raise ValueError("a compute capability is a condition on devices: [cuda]")
        if self.cpu_flags and self.devices != ("cpu",):
            raise ValueError("cpu_flags are a condition on devices: [cpu]")
        if self.support == "optimized" and self.kernel is None:
            raise ValueError("what is optimized names its kernel")
        if self.seen == "probed" and self.support in {"optimized", "works-slowly"} and not self.expects:
            raise ValueError("a row that was probed says in `expects` what the probe named")
        return self

    def about(self, weights: Weights) -> bool | None:
        """Whether the row is about these weights; None where that hangs on something that is not known."""
        out, inputs = weights.shape or (None, None)
        return every(
            "*" in self.formats or weights.format in self.formats,
            _glob(self.types, weights.type),
            _glob(self.methods, weights.method),
            not self.bits or weights.bits in self.bits,
            not self.group_sizes or weights.group_size in self.group_sizes,
            not self.granularities or weights.granularity in self.granularities,
            self.symmetric is None or weights.symmetric == self.symmetric,
            self.desc_act is None or bool(weights.desc_act) == self.desc_act,
            not self.activation_bits or weights.activation_bits in self.activation_bits,
            not self.dtypes or weights.dtype in self.dtypes,
            _divides(self.in_multiple, inputs),
            _divides(self.out_multiple, out),
        )

    def served_by(self, target: Target, version: str | None = None) -> dict[str, bool | None]:
        """By condition, whether the target meets it; None where the target does not say.

        Args:
            target: The deployment.
            version: The version that runs; None for all that the target admits.
        """
        hardware = target.hardware
        flags = hardware.instruction_sets
        has = None if flags is None else set(self.cpu_flags) <= set(flags)
        admitted = target.runtime_version
        runs = lies_within(admitted, self.versions) if version is None else admits(self.versions, version)
        return {
            "device": not self.devices or hardware.device in self.devices,
            "architecture": _named(self.architectures, hardware.architecture),
            "compute_capability": self._capability(target),
            "cpu_flags": True if not self.cpu_flags else has,
            "runtime_version": runs,
        }

    def covers(self, other: Row) -> bool:
        """Whether whatever matches the other row matches this one too, so that the other is never reached behind it."""
        lists = ("bits", "group_sizes", "granularities", "activation_bits", "dtypes", "devices", "architectures")
        return (
            ("*" in self.formats or ("*" not in other.formats and set(other.formats) <= set(self.formats)))
            and all(_within(getattr(self, name), getattr(other, name)) for name in lists)
            and all(_globs_within(getattr(self, name), getattr(other, name)) for name in ("types", "methods"))
            and self.symmetric in {None, other.symmetric}
            and self.desc_act in {None, other.desc_act}
            and _multiple_within(self.in_multiple, other.in_multiple)
            and _multiple_within(self.out_multiple, other.out_multiple)
            and set(self.cpu_flags) <= set(other.cpu_flags)
            and lies_within(other.compute_capability, self.compute_capability) is True
            and lies_within(other.versions, self.versions) is True
        )

    def _capability(self, target: Target) -> bool | None:
        """Over all GPUs that the target may mean: True for all, False for none."""
        if not self.compute_capability:
            return True
        hardware = target.hardware
        known = hardware.compute_capability or COMPUTE_CAPABILITIES.get(hardware.architecture or "", ())
        found = {SpecifierSet(self.compute_capability).contains(one) for one in known}
        return found.pop() if len(found) == 1 else None


def every(*conditions: bool | None) -> bool | None:
    """Three-valued `and`: False where one is, else None where one is not known."""
    if any(one is False for one in conditions):
        return False
    return None if any(one is None for one in conditions) else True


def _glob(globs: Iterable[str], name: str | None) -> bool:
    found = tuple(globs)
    return not found or (name is not None and any(fnmatch.fnmatchcase(name, one) for one in found))


def _named(wanted: tuple[str, ...], given: str | None) -> bool | None:
    if not wanted:
        return True
    return None if given is None else given in wanted


def _divides(multiple: int | None, size: int | None) -> bool | None:
    if multiple is None:
        return True
    return None if size is None else size % multiple == 0


def _within(wide: tuple[Any, ...], narrow: tuple[Any, ...]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _globs_within(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    return not wide or (bool(narrow) and all(any(fnmatch.fnmatchcase(one, glob) for glob in wide) for one in narrow))


def _multiple_within(wide: int | None, narrow: int | None) -> bool:
    return wide is None or (narrow is not None and narrow % wide == 0)

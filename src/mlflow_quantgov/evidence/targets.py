"""A target: a named deployment, declared before quantizing."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.predicates.benchmark import Fingerprint
from mlflow_quantgov.evidence.version_ranges import Specifier
from mlflow_quantgov.resources import policies_dir
from mlflow_quantgov.yaml_files import parse_yaml, read_yaml, validate

Device = Literal[
    "cpu", "cuda", "rocm", "xpu", "metal", "vulkan", "sycl", "opencl", "cann", "hexagon", "webgpu", "et", "endpoint"
]
"""What computes; `cuda` is NVIDIA, `rocm` AMD, `xpu` Intel, `cann` Ascend."""
CpuFlag = Literal[
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve"
]
"""Instruction sets for which runtimes choose other kernels, as Linux names them."""
CPU_FLAGS: tuple[str, ...] = get_args(CpuFlag)
COMPUTE_CAPABILITIES: dict[str, tuple[str, ...]] = {
    "volta": ("7.0",),
    "turing": ("7.5",),
    "ampere": ("8.0", "8.6", "8.7"),
    "ada": ("8.9",),
    "hopper": ("9.0",),
    "blackwell": ("10.0", "10.3"),
    "blackwell-consumer": ("12.0", "12.1"),
}
"""Architecture of NVIDIA GPUs to the compute capabilities that it comes in."""
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,99}$"


_LATER: dict[str, Any] = {"compute_capability": [], "cpu_flags": None}
"""Keys of hardware that came after the first targets were pinned, with what they are where nothing is said."""


class TargetLoad(BaseModel):
    """A load at which speed counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: int = Field(1, ge=1)
    prompt_tokens: int = Field(128, ge=1)
    output_tokens: int = Field(32, ge=1)


class Hardware(BaseModel):
    """What the machine has to be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Device
    architecture: str | None = None
    """Family of kernels: `x86_64`, `hopper` (see policies/kernels)."""
    compute_capability: tuple[Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")], ...] = ()
    """Of the NVIDIA GPUs that it may run on; empty: all of its architecture."""
    cpu_flags: tuple[CpuFlag, ...] | None = None
    """Instruction sets that the CPU is sure to have; None: those of the fingerprint, or not known."""
    match: Literal["exact", "class"] = "exact"
    """`exact`: the whole fingerprint; `class`: CPU or GPU model."""
    fingerprint: Fingerprint | None = None
    """Captured on the machine; None in shipped templates, which then never serve the benchmark."""

    @property
    def instruction_sets(self) -> tuple[str, ...] | None:
        """Those that decide kernels; None where nothing is known of the CPU."""
        if self.cpu_flags is not None or self.fingerprint is None:
            return self.cpu_flags
        return self.fingerprint.cpu_flags

    @model_validator(mode="after")
    def _one_architecture(self) -> Hardware:
        known = COMPUTE_CAPABILITIES.get(self.architecture or "", self.compute_capability)
        strange = [one for one in self.compute_capability if one not in known]
        if strange:
            raise ValueError(f"no {self.architecture} has the compute capability {strange[0]}, but {', '.join(known)}")
        return self


class Target(BaseModel):
    """Runtime, version range, formats, hardware, load, and the switch behind which it serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["quantgov/target/v1"] = Field("quantgov/target/v1", alias="schema")
    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    runtime: str
    runtime_version: Specifier = ""
    """PEP 440 specifier; empty for any."""
    formats: tuple[str, ...] = Field(min_length=1)
    """Containers that the runtime loads and runs well, best first."""
    hardware: Hardware
    loads: tuple[TargetLoad, ...] = (TargetLoad(),)
    must_improve: Literal["speed", "memory", "both"] = "both"
    phase: Literal["prefill", "decode", "both"] = "decode"
    """Which of the two counts as speed."""
    flag: Literal["alias", "openfeature", "external"] | None = None
    """The switch behind which the deployment serves; rollback needs one."""

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical JSON."""
        value = self.model_dump(mode="json", by_alias=True)
        # Keys that came later count where they are set, so that earlier targets keep the digests that policies pin.
        hardware = value["hardware"]
        value["hardware"] = {key: one for key, one in hardware.items() if key not in _LATER or one != _LATER[key]}
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def find_target(name_or_path: str | Path) -> Target:
    """A target by name (in `QUANTGOV_TARGETS`, then among the shipped ones), or by path.

    Raises:
        UsageError: There is no target of that name; the near ones are listed.
        PolicyError: The file is wrong.
    """
    given = Path(name_or_path)
    if given.suffix in {".yaml", ".yml"} or given.is_file():
        return read_target(given)
    for folder in _folders():
        if (folder / f"{name_or_path}.yaml").is_file():
            return read_target(folder / f"{name_or_path}.yaml")
    known = [target.name for target in list_targets()]
    near = difflib.get_close_matches(str(name_or_path), known, n=3, cutoff=0.4) or known
    raise UsageError(
        f"There is no target {str(name_or_path)!r}.",
        why=f"Near ones are {', '.join(near)}.",
        fix="quantgov targets",
    )


def list_targets() -> list[Target]:
    """Every target that can be named, a user's own before the shipped ones."""
    found: dict[str, Target] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.yaml")):
            target = read_target(path)
            found.setdefault(target.name, target)
    return list(found.values())


def read_target(path: Path) -> Target:
    """Read a target file.

    Raises:
        PolicyError: It does not exist, or a key is wrong.
    """
    return validate(Target, parse_yaml(read_yaml(path), path.name), path.name)


def capture(name: str, base: Target, destination: Path) -> Target:
    """Write a target with this machine's fingerprint.

    Args:
        name: Name of the new target.
        base: Target whose runtime, formats and loads it takes.
        destination: YAML file to write; one that exists is left alone, since policies name targets by digest.

    Raises:
        UsageError: The name is no name, the file exists, or the base asks for a GPU that this machine does not have.
    """
    from mlflow_quantgov.evidence.measure.fingerprint import this_machine

    machine = this_machine()
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"{name!r} cannot be the name of a target.",
            why="It consists of small letters, digits, `.`, `_` and `-`.",
            fix="quantgov targets capture my-machine",
        )
    if destination.exists():
        raise UsageError(
            f"{destination} exists.",
            why="A policy may name that target by its digest.",
            fix=f"quantgov targets capture {name} --output OTHER.yaml",
        )
    if base.hardware.device == "cuda" and machine.accelerator is None:
        raise UsageError(
            f"{base.name} is a GPU target, and this machine has no GPU.",
            why="A fingerprint is captured on the machine that serves.",
            fix=f"quantgov targets capture {name} --from cpu-llamacpp   (or run it on the GPU machine)",
        )
    hardware = base.hardware.model_copy(update={"fingerprint": machine})
    captured = base.model_copy(
        update={"name": name, "hardware": hardware, "description": f"Captured from {base.name}."}
    )
    captured = Target.model_validate(captured.model_dump(mode="json", by_alias=True))
    text = yaml.safe_dump(captured.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
    destination.write_text(text, encoding="utf-8")
    return captured


def _folders() -> list[Path]:
    own = [Path(one) for one in os.environ.get("QUANTGOV_TARGETS", "").split(os.pathsep) if one]
    return [*own, policies_dir() / "targets"]

"""The hardware of this machine, and whether it is the one that a target names."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from mlflow_quantgov.evidence.predicates.benchmark import Fingerprint
from mlflow_quantgov.evidence.targets import CPU_FLAGS, Target

# A cgroup or a firmware hides some memory; a different machine differs by far more.
_MEMORY_TOLERANCE = 0.1


def this_machine() -> Fingerprint:
    """CPU model and flags, usable cores and memory (cgroup limits included), and GPU of this machine."""
    cpu = _cpu_info()
    words = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return Fingerprint(
        machine=platform.machine(),
        cpu_model=cpu.get("model name") or platform.processor() or platform.machine(),
        cpu_flags=tuple(flag for flag in CPU_FLAGS if flag in words),
        cores=_cores(),
        memory_bytes=_memory(),
        accelerator=_accelerator(),
    )


def differences(target: Target, measured: Fingerprint) -> list[str]:
    """Where measured hardware is not the target's, in words; empty where it matches.

    Args:
        target: With a captured fingerprint; `match: class` compares the CPU or GPU model alone.
        measured: Hardware that was measured on.
    """
    wanted = target.hardware.fingerprint
    if wanted is None:
        return [f"the target {target.name} is a template without a captured fingerprint"]
    names = ["cpu_model", "accelerator"]
    if target.hardware.match == "exact":
        names = ["machine", "cpu_model", "cpu_flags", "cores", "accelerator"]
    found = [
        f"{name.replace('_', ' ')} is {getattr(measured, name)}, the target's is {getattr(wanted, name)}"
        for name in names
        if getattr(measured, name) != getattr(wanted, name)
    ]
    other_memory = abs(measured.memory_bytes - wanted.memory_bytes) > _MEMORY_TOLERANCE * wanted.memory_bytes
    if target.hardware.match == "exact" and other_memory:
        found.append(
            f"memory is {measured.memory_bytes / 1e9:.0f} GB, the target's is {wanted.memory_bytes / 1e9:.0f} GB"
        )
    return found


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, round(int(quota[0]) / int(quota[1]))))
    return cores


def _memory() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup("memory.max").strip()
    return min(memory, int(limit)) if limit.isdigit() else memory


def _cgroup(name: str) -> str:
    try:
        return (Path("/sys/fs/cgroup") / name).read_text(encoding="utf-8")
    except OSError:
        return ""


def _accelerator() -> str | None:
    """Name of the first NVIDIA GPU as its driver gives it; no GPU library is loaded."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return None

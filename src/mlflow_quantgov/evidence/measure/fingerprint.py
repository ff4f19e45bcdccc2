"""The hardware of this machine, and whether it is the one that a target names."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from mlflow_quantgov.evidence.measure.cgroup import ControlGroups
from mlflow_quantgov.evidence.measure.gpus import visible_gpus
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, installed
from mlflow_quantgov.evidence.predicates.benchmark import Fingerprint
from mlflow_quantgov.evidence.targets import CPU_FLAGS, Target

# A cgroup or a firmware hides some memory; a different machine differs by far more.
_MEMORY_TOLERANCE = 0.1


def this_machine() -> Fingerprint:
    """CPU model and flags, usable cores and memory (cgroup limits included), GPU with its driver, and libraries of this machine."""
    cpu = _cpu_info()
    words = set((cpu.get("flags") or cpu.get("Features") or "").split())
    groups, gpus = ControlGroups(), visible_gpus()
    gpu = gpus[0] if gpus else None
    identity = [cpu.get(key, "?") for key in ("cpu family", "model", "stepping")]
    limit = groups.cpu_limit()
    return Fingerprint(
        machine=platform.machine(),
        cpu_model=cpu.get("model name") or platform.processor() or platform.machine(),
        cpu_id=f"{cpu['vendor_id']} {'/'.join(identity)}" if "vendor_id" in cpu else None,
        cpu_flags=tuple(flag for flag in CPU_FLAGS if flag in words),
        cores=usable_cores(limit),
        cpu_limit=limit if limit is not None and limit < _processors() else None,
        memory_bytes=min(_memory(), groups.memory_limit() or _memory()),
        accelerator=gpu.name if gpu else _accelerator(),
        accelerators=len(gpus) if gpus else None,
        accelerator_memory_bytes=gpu.memory_bytes if gpu else None,
        compute_capability=gpu.capability if gpu else None,
        driver=gpu.driver if gpu else None,
        system=f"{platform.system()} {platform.release()}",
        libraries=installed(*RUNTIME_LIBRARIES),
    )


def usable_cores(limit: float | None) -> int:
    """Cores that this process may keep busy: by affinity, and by the cgroup's quota where it is lower."""
    cores = _processors()
    return cores if limit is None else min(cores, max(1, round(limit)))


def free_memory() -> int:
    """Bytes that this process could still take without pushing others out."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        free = _memory()
    groups = ControlGroups()
    limit, used = groups.memory_limit(), groups.memory_used()
    return free if limit is None or used is None else max(0, min(free, limit - used))


def differences(target: Target, measured: Fingerprint) -> list[str]:
    """Where measured hardware is not the target's, in words; empty where it matches.

    Args:
        target: With a captured fingerprint; `match: class` compares the CPU's or the GPU's model alone, and with a CPU its
            instruction sets, since clouds give many processors one name. What was not captured (by an earlier version) is
            not compared.
        measured: Hardware that was measured on.
    """
    wanted = target.hardware.fingerprint
    if wanted is None:
        return [f"the target {target.name} is a template without a captured fingerprint"]
    if target.hardware.match == "class":
        # A GPU beside a CPU target's processor makes another class of machine only where the runtime would use it.
        device = target.hardware.device
        on_gpu = device == "cuda" or (device != "cpu" and wanted.accelerator is not None)
        names = ("accelerator",) if on_gpu else ("cpu_model", "cpu_id", "cpu_flags")
        return [one for name in names if (one := _difference(name, wanted, measured))]
    found = [_difference(name, wanted, measured) for name in _WORDS]
    found += [_memory_difference("memory", wanted.memory_bytes, measured.memory_bytes)]
    found += [
        _memory_difference("GPU memory", wanted.accelerator_memory_bytes, measured.accelerator_memory_bytes),
        *_other_libraries(target.runtime, wanted, measured),
    ]
    return [one for one in found if one]


_WORDS = {
    "machine": "architecture",
    "cpu_model": "CPU",
    "cpu_id": "CPU family/model/stepping",
    "cpu_flags": "instruction sets",
    "cores": "cores",
    "cpu_limit": "CPU quota of the cgroup",
    "accelerator": "GPU",
    "accelerators": "GPUs",
    "compute_capability": "compute capability",
    "driver": "GPU driver",
}
"""Fields that have to be equal, as people call them."""
_ALWAYS = {"machine", "cpu_model", "cpu_flags", "cores", "accelerator"}
"""Compared even where the target says nothing: it always could."""
_OF_RUNTIME = {
    "llama.cpp": ("xllamacpp", "llama-cpp-python"),
    "transformers": ("transformers", "torch"),
    "onnxruntime": ("onnxruntime", "onnxruntime-genai"),
}


def _difference(name: str, wanted: Fingerprint, measured: Fingerprint) -> str | None:
    here, there = getattr(measured, name), getattr(wanted, name)
    # A quota is captured by its absence too, as soon as anything of that age was captured.
    known = name in _ALWAYS or there is not None or (name == "cpu_limit" and wanted.cpu_id is not None)
    if here == there or not known:
        return None
    if name == "cpu_flags":
        more, less = [one for one in here if one not in there], [one for one in there if one not in here]
        parts = [f"{' '.join(less)} only on the target"] * bool(less) + [f"{' '.join(more)} only here"] * bool(more)
        return f"{_WORDS[name]}: {', '.join(parts)}"
    return f"{_WORDS[name]}: {_said(here)} here, {_said(there)} on the target"


def _said(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _memory_difference(word: str, wanted: int | None, measured: int | None) -> str | None:
    if wanted is None or abs((measured or 0) - wanted) <= _MEMORY_TOLERANCE * wanted:
        return None
    return f"{word}: {(measured or 0) / 1e9:.1f} GB here, {wanted / 1e9:.1f} GB on the target"


def _other_libraries(runtime: str, wanted: Fingerprint, measured: Fingerprint) -> list[str]:
    """Versions of what runs the target's models, where they were captured."""
    if wanted.libraries is None or measured.libraries is None:
        return []
    return [
        f"{name}: {measured.libraries.get(name, 'none')} here, {wanted.libraries.get(name, 'none')} on the target"
        for name in _OF_RUNTIME.get(runtime, ())
        if measured.libraries.get(name) != wanted.libraries.get(name)
    ]


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _accelerator() -> str | None:
    """Name of the first NVIDIA GPU as its driver gives it; no GPU library is loaded."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return None

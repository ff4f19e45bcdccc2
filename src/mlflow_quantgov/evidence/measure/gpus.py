"""NVIDIA GPUs of this machine, as their driver's own tool gives them; no GPU library is loaded into this process."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_FIELDS = ("index", "uuid", "name", "memory.total", "compute_cap", "driver_version")
_TIMEOUT = 20


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    index: str
    uuid: str
    name: str
    memory_bytes: int
    capability: str
    """Compute capability: `9.0`."""
    driver: str


def visible_gpus() -> list[Gpu]:
    """GPUs that a process started here sees (`CUDA_VISIBLE_DEVICES` obeyed); empty without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    if done.returncode != 0:
        return []
    return _chosen(parse(done.stdout), os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse(text: str) -> list[Gpu]:
    """GPUs of the tool's CSV; lines of another shape are left out."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != len(_FIELDS):
            continue
        index, uuid, name, memory, capability, driver = (word.strip() for word in row)
        mebibytes = int(memory) if memory.isdigit() else 0
        found.append(Gpu(index, uuid, name, mebibytes * 2**20, capability, driver))
    return found


def _chosen(found: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Those that the variable names, in its order; CUDA ignores all from the first wrong name on."""
    if visible is None:
        return list(found)
    chosen: list[Gpu] = []
    for word in (part.strip() for part in visible.split(",")):
        one = next((gpu for gpu in found if word == gpu.index or (word and gpu.uuid.startswith(word))), None)
        if one is None:
            break
        chosen.append(one)
    return chosen

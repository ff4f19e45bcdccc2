"""Storage types in which full-precision weights can be run without changing one of their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Set
from math import prod

from mlflow_quantgov.artifact.runtimes.interface import Configuration
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored

TYPES = ("BF16", "F16", "F32")


def configurations_by_type(tensors: Mapping[str, Stored], stored: Set[str]) -> list[Configuration]:
    """A configuration for each storage type, named by it, the stored ones first.

    bfloat16 and float16 widen to float32 exactly; whether the other way loses anything, the numbers themselves say.

    Args:
        tensors: The weights that would be stored in that type.
        stored: Types in which they are stored.
    """
    elements = sum(prod(tensor.shape) for tensor in tensors.values())
    found = []
    for kind in sorted(TYPES, key=lambda kind: kind not in stored):
        changed = next((name for name, tensor in tensors.items() if not tensor.holds(kind)), None)
        lossy = f"{changed} holds numbers that {kind} does not" if changed else None
        found.append(Configuration(kind, {}, elements * (4 if kind == "F32" else 2), lossy))
    return found

"""What may have differed between the sides beside the quantization."""

from __future__ import annotations

from mlflow_quantgov.evidence.predicates.base import Side

_SETTINGS = (
    "threads",
    "context",
    "batch",
    "device",
    "engine",
    "compute_dtype",
    "kv_cache",
    "library",
    "system_info",
    "api",
)
"""Settings that a runtime resolves by itself, and that must not differ between the sides."""


def confounders(parent: Side, quantized: Side) -> list[str]:
    """In words, one for each difference that is not the quantization."""
    found = []
    if parent.runtime != quantized.runtime:
        found.append(
            f"The sides ran in different runtimes: the parent in {parent.runtime}, the quantized version in {quantized.runtime}. "
            "What was lost may be the runtime's doing."
        )
    elif parent.version != quantized.version:
        found.append(
            f"The sides ran in different versions of {parent.runtime}: {parent.version} and {quantized.version}."
        )
    for key in _SETTINGS:
        a, b = parent.settings.get(key), quantized.settings.get(key)
        if key in parent.settings and key in quantized.settings and a != b:
            found.append(f"The sides ran with different {key}: {a} and {b}.")
    return found

"""Settings of the transformers runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.artifact.runtimes import settings

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class TransformersSettings:
    """What must be equal when two models are compared."""

    threads: int
    """Threads of torch, above 0; torch keeps one number for the whole process."""
    context: int | None = None
    """Tokens per sequence; None: as the config says, at most 2048."""
    batch: int = 2048
    """Tokens per pass while scoring, above 0."""
    dtype: str = "auto"
    """Type of unquantized weights: `auto` (as stored), `float32`, `bfloat16`, `float16`."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto` for CUDA where there is one."""


def read_settings(values: dict[str, Any]) -> TransformersSettings:
    """Checked settings; what is not given gets its default.

    Raises:
        UsageError: A name is unknown, or a value is out of range.
    """
    return settings.read_settings(TransformersSettings, "transformers", values, {"dtype": _DTYPES, "device": _DEVICES})

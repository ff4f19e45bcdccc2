"""Settings of the onnxruntime runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.artifact.runtimes import settings

ENGINES = ("auto", "genai", "session")


@dataclass(frozen=True)
class OnnxSettings:
    """What must be equal when two models are compared."""

    threads: int
    """Threads inside one operator (`intra_op_num_threads`), above 0."""
    context: int | None = None
    """Tokens per sequence; None: as trained, at most 2048."""
    batch: int = 512
    """Tokens per pass while scoring, above 0."""
    engine: str = "auto"
    """`genai` (onnxruntime-genai), `session` (onnxruntime alone), or `auto`: genai where there is a genai_config.json."""


def read_settings(values: dict[str, Any]) -> OnnxSettings:
    """Checked settings; what is not given gets its default.

    Raises:
        UsageError: A name is unknown, or a value is out of range.
    """
    return settings.read_settings(OnnxSettings, "onnxruntime", values, {"engine": ENGINES})

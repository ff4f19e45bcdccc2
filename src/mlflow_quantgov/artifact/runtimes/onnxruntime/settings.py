"""Settings of the onnxruntime runtime."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from mlflow_quantgov.errors import UsageError

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
    known = {field.name for field in fields(OnnxSettings)}
    for name, value in values.items():
        if name not in known:
            raise _bad_setting(name, value, f"one of {', '.join(sorted(known))}")
        if value is None:
            continue
        if name == "engine":
            if value not in ENGINES:
                raise _bad_setting(name, value, f"one of {', '.join(ENGINES)}")
        elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**20:
            raise _bad_setting(name, value, "a whole number above 0")
    given = {name: value for name, value in values.items() if value is not None}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return OnnxSettings(**{"threads": cores} | given)


def _bad_setting(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(
        f"The onnxruntime runtime does not take {name}={value!r}.",
        why="A setting that is silently ignored makes two sides incomparable.",
        fix=f"use {wanted}",
    )

"""Settings of the transformers runtime."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from mlflow_quantgov.errors import UsageError

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
    known = {field.name for field in fields(TransformersSettings)}
    choices = {"dtype": _DTYPES, "device": _DEVICES}
    for name, value in values.items():
        if name not in known:
            raise _bad_setting(name, value, f"one of {', '.join(sorted(known))}")
        if value is None:
            continue
        if name in choices:
            if value not in choices[name]:
                raise _bad_setting(name, value, f"one of {', '.join(choices[name])}")
        elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**20:
            raise _bad_setting(name, value, "a whole number above 0")
    given = {name: value for name, value in values.items() if value is not None}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return TransformersSettings(**{"threads": cores} | given)


def _bad_setting(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(
        f"The transformers runtime does not take {name}={value!r}.",
        why="A setting that is silently ignored makes two sides incomparable.",
        fix=f"use {wanted}",
    )

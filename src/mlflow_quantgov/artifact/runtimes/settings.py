"""Settings of a runtime, read in one way: what is not known is an error, and equal settings are equal everywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from mlflow_quantgov.errors import UsageError

MOST = 2**20
Settings = TypeVar("Settings")


def read_settings(
    kind: type[Settings],
    runtime: str,
    values: Mapping[str, Any],
    choices: Mapping[str, Sequence[str]] | None = None,
    others: Sequence[str] = (),
) -> Settings:
    """Checked settings; what is not given gets its default, and `threads` the cores that this process may use.

    Args:
        kind: Dataclass of the settings, with a field `threads`.
        runtime: Name of the runtime, for the error.
        values: What was given; None stands for the default.
        choices: Fields that take one of some words; all others take a whole number above 0.
        others: Names that the runtime takes besides, for the error.

    Raises:
        UsageError: A name is unknown, or a value is out of range.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass, as the argument says
    words = choices or {}
    for name, value in values.items():
        if name not in known:
            raise bad_setting(runtime, name, value, f"one of {', '.join([*sorted(known), *others])}")
        if value is None:
            continue
        if name in words:
            if value not in words[name]:
                raise bad_setting(runtime, name, value, f"one of {', '.join(words[name])}")
        elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
            raise bad_setting(runtime, name, value, "a whole number above 0")
    given = {name: value for name, value in values.items() if value is not None}
    return kind(**{"threads": usable_cores()} | given)


def bad_setting(runtime: str, name: str, value: object, wanted: str) -> UsageError:
    """The error for a setting that a runtime does not take."""
    return UsageError(
        f"The {runtime} runtime does not take {name}={value!r}.",
        why="A setting that is silently ignored makes two sides incomparable.",
        fix=f"use {wanted}",
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

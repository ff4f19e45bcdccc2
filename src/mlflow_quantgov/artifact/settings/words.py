"""Settings of a computation, and when two of their values are the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

Values = dict[str, Any]
_PRECISION = 1e-6
"""Relative; GGUF stores single precision."""


@dataclass(frozen=True)
class Settings:
    """What one side says of the computation."""

    values: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["none", "config", "gguf", "graph"] = "none"
    """Whose words these are: a config's are whole, with the defaults of its model type filled in; GGUF's metadata and the config
    beside a graph, which computes by itself, say only some of it."""
    ties: bool | None = None
    """Whether the output matrix is the embedding; None where nothing is said."""


class _Unsaid(Enum):
    """No value of a config, so that no config can write it."""

    ANY = "computed from other settings where it is left out: agrees with everything"


ANY = _Unsaid.ANY


def is_nothing(value: Any) -> bool:
    """Whether a value says that there is none of it."""
    return value is None or value is False or value in (0, "", [], {})


def agree(one: Any, other: Any) -> bool:
    """Whether two values are the same; numbers to single precision, lists item by item."""
    if ANY in (one, other):
        return True
    if isinstance(one, int | float) and isinstance(other, int | float):
        try:
            return one == other or math.isclose(one, other, rel_tol=_PRECISION)
        except OverflowError:
            return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(agree, one, other))
    return bool(one == other)

"""A test of likeness as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def percentages(test: Mapping[str, Any]) -> dict[str, str]:
    """`estimate`, `lower`, `upper` and `threshold` of a judged test in per cent.

    A squared discrepancy can come out below zero by chance, which reads as no distance.
    """
    area = test["statistic"] == "area-under-curve"
    keys = ("estimate", "lower", "upper", "threshold")
    return {key: f"{test[key] if area else max(test[key], 0.0):.1%}" for key in keys}

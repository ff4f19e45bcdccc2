"""What a check is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.policy.decision import CheckResult, Outcome
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.schema import Gate, Yardsticks


@dataclass(frozen=True)
class Question:
    """What a check is asked."""

    gate: Gate
    yardsticks: Yardsticks
    facts: Facts

    @property
    def uri(self) -> str:
        """The version, as commands name it."""
        return f"models:/{self.facts.name}/{self.facts.version}"


Check = Callable[[Question], CheckResult]


def result(
    check: str, outcome: Outcome, reason: str, fix: str = "", evidence: Iterable[Evidence] = (), **numbers: Any
) -> CheckResult:
    """Build a result."""
    return CheckResult(check, outcome, reason, fix, dict(numbers), tuple(one.digest for one in evidence))

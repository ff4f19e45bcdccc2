"""What a check is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.evidence.predicates import Benchmark, Fidelity, Predicate, Side, TaskEval
from mlflow_quantgov.lineage import ModelFacts
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
    check: str, outcome: Outcome, reason: str, fix: str = "", evidence: Iterable[Evidence] = (), /, **numbers: Any
) -> CheckResult:
    """Build a result; words that came from a statement lose line ends and control characters."""
    return CheckResult(check, outcome, _plain(reason), _plain(fix), numbers, tuple(one.digest for one in evidence))


def is_about(side: Side | None, model: ModelFacts | None, content: Predicate) -> bool:
    """Whether a side of a measurement is this model: its weights, and whatever else decides its answers.

    Records that were imported cannot know the latter; they are labelled as such.
    """
    if side is None or model is None or side.weights != model.weights:
        return False
    return side.behaviour == model.behaviour or (side.behaviour is None and content.provenance.imported)


def compares(content: TaskEval | Fidelity | Benchmark, facts: Facts) -> bool:
    """Whether a comparison is of this version with its parent, and of two different models."""
    parent = facts.lineage.parent if facts.lineage else None
    two = content.parent.weights != content.quantized.weights
    return two and is_about(content.quantized, facts.model, content) and is_about(content.parent, parent, content)


def _plain(text: str) -> str:
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())

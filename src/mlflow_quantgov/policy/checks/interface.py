"""What a check is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.errors import one_line
from mlflow_quantgov.evidence.predicates import Benchmark, BenchmarkV1, FidelityV1, Predicate, Side, TaskEval
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
    return CheckResult(check, outcome, one_line(reason), one_line(fix), numbers, tuple(one.digest for one in evidence))


def is_about(side: Side | None, model: ModelFacts | None, content: Predicate) -> bool:
    """Whether a side of a measurement is this model: its weights, and whatever else decides its answers.

    Records that were imported cannot know the latter; they are labelled as such.
    """
    if side is None or model is None or side.weights != model.weights:
        return False
    return side.behaviour == model.behaviour or (side.behaviour is None and content.provenance.imported)


def compares(content: TaskEval | FidelityV1 | Benchmark | BenchmarkV1, facts: Facts) -> bool:
    """Whether a comparison is of this version with its parent, of two different models, and the quantized one ran as such.

    A runtime that expands the weights on loading runs something else than what will be served.
    """
    return _is_of_this_pair(content, facts) and _ran_quantized(content)


def not_measured(kind: str, facts: Facts, otherwise: str) -> str:
    """Why evidence of a kind does not count, where there is some of this very pair; else other words."""
    for one in reversed(facts.of_kind(kind)):
        content = one.content
        if not isinstance(content, TaskEval | FidelityV1 | Benchmark | BenchmarkV1) or _ran_quantized(content):
            continue
        if _is_of_this_pair(content, facts):
            if content.quantized.dequantized is None:
                return "nobody recorded whether the runtime expanded the weights"
            return f"{content.quantized.runtime} expanded the weights when it was measured, so nothing quantized ran"
    return otherwise


def _ran_quantized(content: TaskEval | FidelityV1 | Benchmark | BenchmarkV1) -> bool:
    """Records that were imported cannot know; they are labelled as such."""
    seen = content.quantized.dequantized
    return seen is False or (seen is None and content.provenance.imported)


def _is_of_this_pair(content: TaskEval | FidelityV1 | Benchmark | BenchmarkV1, facts: Facts) -> bool:
    parent = facts.lineage.parent if facts.lineage else None
    two = content.parent.weights != content.quantized.weights
    return two and is_about(content.quantized, facts.model, content) and is_about(content.parent, parent, content)

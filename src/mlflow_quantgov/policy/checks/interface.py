"""What a check is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.errors import one_line, pasted
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
    destination: str = ""
    """`@alias` or a stage that is asked for."""
    policy: str = ""
    """Digest of the policy."""
    rests_on: tuple[Evidence, ...] = ()
    """Evidence that the other checks of the decision rest on."""
    stores: tuple[str, ...] = ()
    """Addresses below which the version's files have to lie; empty: anywhere."""

    @property
    def uri(self) -> str:
        """The version, as commands name it."""
        return pasted(f"models:/{self.facts.name}/{self.facts.version}")


Check = Callable[[Question], CheckResult]


def result(
    check: str, outcome: Outcome, reason: str, fix: str = "", evidence: Iterable[Evidence] = (), /, **numbers: Any
) -> CheckResult:
    """Build a result; words that came from a statement lose line ends and control characters."""
    return CheckResult(check, outcome, one_line(reason), one_line(fix), numbers, tuple(one.digest for one in evidence))


def other_weights(model: ModelFacts | None) -> tuple[str, str] | None:
    """What to say, and its fix, of a model beside whose weights lie others that were not inspected."""
    warnings = model.quantization.warnings if model else ()
    beside = next((one for one in warnings if "also holds weights" in one), None)
    if beside is None:
        return None
    reason = f"{beside.removeprefix('not-inspected: ')}, and nobody can tell which of them is served."
    return reason, "remove it from the folder, and log the model again"


def is_about(side: Side | None, model: ModelFacts | None, content: Predicate) -> bool:
    """Whether a side of a measurement is this model: its weights, and whatever else decides its answers.

    Records that were imported cannot know the latter; they are labelled as such. The gate notes it from the version that
    they are attached to first; where nothing was noted (nothing is gated, rows of before), the weights decide.
    """
    if side is None or model is None or side.weights != model.weights:
        return False
    return side.behaviour == model.behaviour or (side.behaviour is None and content.provenance.imported)


def device_of(side: Side) -> str | None:
    """What multiplied: transformers says so, llama.cpp and onnxruntime name it in the kernel; None where nobody does."""
    said = side.settings.get("device")
    if said:
        return str(said).partition(":")[0]
    return "cpu" if "CPU" in (side.kernel or "") else None


def compares(content: TaskEval | FidelityV1 | Benchmark | BenchmarkV1, facts: Facts) -> bool:
    """Whether a comparison is of this version with its parent, of two different models, and the quantized one ran as such.

    A runtime that expands the weights on loading runs something else than what will be served.
    """
    return _is_of_this_pair(content, facts) and _ran_quantized(content)


def not_measured(kind: str, facts: Facts, otherwise: str) -> str:
    """Why evidence of a kind does not count, where there is some; else other words.

    Args:
        kind: Of the evidence, none of which counts.
        facts: What is known.
        otherwise: What to say where there is none, and with what follows where there is some of another pair.
    """
    other = ""
    for one in reversed(facts.of_kind(kind)):
        content = one.content
        if not isinstance(content, TaskEval | FidelityV1 | Benchmark | BenchmarkV1):
            continue
        if not _is_of_this_pair(content, facts):
            other = other or _of_another_pair(content, facts, one.noted is not None)
        elif content.quantized.dequantized is None:
            return "nobody recorded whether the runtime expanded the weights"
        elif not _ran_quantized(content):
            return f"{content.quantized.runtime} expanded the weights when it was measured, so nothing quantized ran"
    return f"{otherwise}; what was attached is {other}" if other else otherwise


def _of_another_pair(content: TaskEval | FidelityV1 | Benchmark | BenchmarkV1, facts: Facts, noted: bool) -> str:
    """Which side of a comparison is not this version's, in words; `noted` says what imported records are of."""
    parent = facts.lineage.parent if facts.lineage else None
    for side, model, words in (
        (content.quantized, facts.model, "of other weights than this version's"),
        (content.parent, parent, "against other weights than its parent's"),
    ):
        if model is None or side.weights != model.weights:
            return words
    same = "this version's" if not is_about(content.quantized, facts.model, content) else "its parent's"
    words = f"of {same} weights with another configuration, tokenizer or template"
    return f"{words}, for which it was imported: measure this version, or import its own records" if noted else words


def _ran_quantized(content: TaskEval | FidelityV1 | Benchmark | BenchmarkV1) -> bool:
    """Records that were imported cannot know; they are labelled as such."""
    seen = content.quantized.dequantized
    return seen is False or (seen is None and content.provenance.imported)


def _is_of_this_pair(content: TaskEval | FidelityV1 | Benchmark | BenchmarkV1, facts: Facts) -> bool:
    parent = facts.lineage.parent if facts.lineage else None
    two = content.parent.weights != content.quantized.weights
    return two and is_about(content.quantized, facts.model, content) and is_about(content.parent, parent, content)

"""What the field's usual gates say of measured scores, and what this project's policy says of the same ones.

Each rule is written as its source states it (docs/explanation/field-gates.md names the sources). Ours is not written
here: the checks of the default policy are asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import numpy as np
from scipy.stats import norm

from mlflow_quantgov.artifact.quantization import LayerQuantization, Quantization, Structure
from mlflow_quantgov.evidence.predicates import Answer, Provenance, Side, TaskEval, TaskItem, TaskResult
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.statistics import Comparison, compare
from mlflow_quantgov.lineage import Lineage, ModelFacts
from mlflow_quantgov.policy.checks import bit_width, task_eval
from mlflow_quantgov.policy.checks.interface import Question
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.loader import load_policy
from mlflow_quantgov.policy.schema import Gate, Yardsticks

START, END = "<!-- written by benchmarks/field_gates.py -->", "<!-- end -->"
Record = dict[str, Any]
Scores = list[float]


@dataclass(frozen=True)
class Rule:
    """One gate of the field on one task."""

    name: str
    items: int | None
    """It looks at the first so many items; None for all."""
    passes: Callable[[Scores, Scores], bool]
    """(parent's scores, quantized version's scores) to its verdict."""


def _close(parent: Scores, quantized: Scores) -> bool:
    return bool(np.isclose(fmean(parent), fmean(quantized), rtol=0.08))


def _recovery(parent: Scores, quantized: Scores) -> bool:
    return round(fmean(quantized) / fmean(parent), 2) >= 0.95


def _relative(parent: Scores, quantized: Scores) -> bool:
    return fmean(quantized) >= fmean(parent) * (1 - 0.01)


def _absolute(parent: Scores, quantized: Scores) -> bool:
    return fmean(parent) - fmean(quantized) <= 0.01


def _not_significant(parent: Scores, quantized: Scores) -> bool:
    error = math.sqrt(variance(parent) / len(parent) + variance(quantized) / len(quantized))
    difference = abs(fmean(parent) - fmean(quantized))
    return difference == 0 or (error > 0 and float(2 * norm.sf(difference / error)) > 0.05)


def _mlflow(parent: Scores, quantized: Scores) -> bool:
    """MLflow itself is asked: no loss at all, which is the least that a change from the baseline can demand."""
    from mlflow.models import EvaluationResult, MetricThreshold
    from mlflow.models.evaluation.validation import ModelValidationFailedException, validate_evaluation_results

    logging.getLogger("mlflow.models.evaluation.validation").setLevel(logging.WARNING)
    sides = [EvaluationResult(metrics={"score": fmean(scores)}, artifacts={}) for scores in (quantized, parent)]
    least = MetricThreshold(min_relative_change=0.0, greater_is_better=True)
    try:
        validate_evaluation_results({"score": least}, *sides)
    except ModelValidationFailedException:
        return False
    return True


RULES = (
    Rule("vLLM", 250, _close),
    Rule("llm-compressor", 1000, _recovery),
    Rule("Neural Compressor", None, _relative),
    Rule("NNCF", None, _absolute),
    Rule("lm-eval z test", 100, _not_significant),
    Rule("MLflow", None, _mlflow),
)


def average_recovery(parent: dict[str, Scores], quantized: dict[str, Scores]) -> float:
    """Average score of all tasks over the parent's, as model cards state it."""
    return fmean(fmean(one) for one in quantized.values()) / fmean(fmean(one) for one in parent.values())


def read_records(path: Path) -> Record:
    """The measured records."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def parent_of(records: Record, artifact: Record) -> Record:
    """The parent as it was measured in the artifact's runtime."""
    return dict(records["parents"][artifact["runtime"]])


def scores_of(side: Record) -> dict[str, Scores]:
    """Task name to 0/1 scores in the order of the items."""
    return {task: [float(sign) for sign in signs] for task, signs in side["scores"].items()}


def field_verdicts(records: Record, artifact: Record, tasks: list[str]) -> dict[str, bool]:
    """Rule to verdict, where every one of the tasks has to pass."""
    parent, quantized = scores_of(parent_of(records, artifact)), scores_of(artifact)
    return {
        rule.name: all(rule.passes(parent[task][: rule.items], quantized[task][: rule.items]) for task in tasks)
        for rule in RULES
    }


def default_gate(records: Record) -> Gate:
    """The default policy's gate in front of users, for those of its capabilities that were measured here."""
    gate = load_policy().gates["full"]
    measured = {task["capability"] for task in records["tasks"].values()}
    wanted = {name: one for name, one in gate.capabilities.items() if name in measured}
    return gate.model_copy(update={"capabilities": wanted})


def our_checks(records: Record, artifact: Record) -> tuple[CheckResult, CheckResult]:
    """What the checks `task-eval` and `bit-width` of the default policy say of the measured scores and bits."""
    sides = [_side(one) for one in (parent_of(records, artifact), artifact)]
    content = TaskEval.measured(
        provenance=Provenance(measured_at=datetime.fromisoformat(records["measured_at"]), tool_version="0"),
        parent=sides[0],
        quantized=sides[1],
        settings=records["settings"],
        tasks=tuple(_result(name, records, artifact) for name in records["tasks"]),
    )
    statement = Statement.about(artifact["weights"], content, name=artifact["name"])
    facts = Facts(
        name="smollm2",
        version="1",
        role="quantized",
        now=datetime.now(UTC),
        model=_facts(artifact),
        lineage=Lineage("structure", "models:/smollm2/0", _facts(parent_of(records, artifact))),
        evidence=(Evidence(statement, content, statement.digest, None),),
    )
    question = Question(default_gate(records), Yardsticks(), facts)
    return task_eval.run(question), bit_width.run(question)


def our_verdict(checks: tuple[CheckResult, CheckResult]) -> str:
    """`allowed`, `inconclusive` (refused until more is measured) or `refused`."""
    tasks, bits = checks
    if tasks.outcome == "fail" or bits.refuses:
        return "refused"
    return "allowed" if tasks.outcome == "pass" else tasks.outcome


def _side(one: Record) -> Side:
    return Side(
        weights=one["weights"], behaviour=one["behaviour"], runtime=one["runtime"], version=one["runtime_version"],
        dequantized=False,
    )  # fmt: skip


def _result(name: str, records: Record, artifact: Record) -> TaskResult:
    """The task's items. The records keep neither prompts nor answers.

    That no two prompts are equal, and that answers were written, was seen when they were measured.
    """
    task = records["tasks"][name]
    parent, quantized = scores_of(parent_of(records, artifact))[name], scores_of(artifact)[name]
    output = "written, and not kept in these records" if task["output_type"] == "generate_until" else None
    items = tuple(
        TaskItem(
            id=str(place),
            choices=task["choices"],
            prompt_sha256=hashlib.sha256(f"{name}/{place}".encode()).hexdigest(),
            parent=Answer(score=before, output=output),
            quantized=Answer(score=after, output=output),
        )
        for place, (before, after) in enumerate(zip(parent, quantized, strict=True))
    )
    keys = ("task_digest", "capability", "metric", "output_type")
    return TaskResult(task=name, higher_is_better=True, items=items, **{key: task[key] for key in keys})


def _facts(one: Record) -> ModelFacts:
    """What inspection found, as far as it was kept."""
    layers = tuple(
        LayerQuantization(f"{bits}-{number}", float(bits), 32, (1, 1))
        for bits, count in one["matrices_by_bits"].items()
        for number in range(count)
    )
    found = Quantization(
        format=one["format"], method=one["method"], bits=one["bits"], bits_per_weight=one["bits_per_weight"], group_size=32,
        granularity="group", symmetric=None, activation_bits=None, kv_cache_bits=None, desc_act=None, dtype=None,
        quantized_parameters=0, total_parameters=0, size_bytes=one["bytes"], producer=None, calibration_required=False,
        layers=layers,
    )  # fmt: skip
    return ModelFacts(one["weights"], one["weights"], one["behaviour"], found, Structure("llama"))


def compared(records: Record, artifact: Record, task: str) -> Comparison:
    """The paired comparison of one task at the default policy's margin."""
    margin = next(iter(default_gate(records).capabilities.values())).margin
    return compare(scores_of(parent_of(records, artifact))[task], scores_of(artifact)[task], margin=margin)

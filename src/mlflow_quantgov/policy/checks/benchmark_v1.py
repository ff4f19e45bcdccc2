"""Benchmarks that an earlier version measured: judged as they were then."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_quantgov.evidence.predicates import BenchmarkV1
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence

NAME = "benchmark"
CONFIDENCE = 0.95


def judge(question: Question, content: BenchmarkV1, newest: Sequence[Evidence], fix: str) -> CheckResult:
    """The verdict over a statement of version 1, whose rounds were fixed in number before they began."""
    target = question.facts.target
    assert target is not None
    summary = content.recompute()
    phases = ("prefill", "decode") if target.phase == "both" else (target.phase,)
    ratios = [load[phase] for load in summary["loads"] for phase in phases]
    memory = summary["memory_ratio"]
    worst = min(ratios, key=lambda one: one["ratio"])
    speed = f"{worst['quantized']:.0f} against {worst['parent']:.0f} tokens/s (x{worst['ratio']:.2f})"
    evidence = newest
    weakest = min(load["confidence"] for load in summary["loads"])
    if weakest < CONFIDENCE:
        few = f"{min(load['rounds'] for load in summary['loads'])} rounds bound the ratio with {weakest:.0%} confidence"
        return result(NAME, "inconclusive", f"Too few rounds: {few}.", f"{fix}", evidence, **summary)
    if target.must_improve in {"speed", "both"}:
        if any(one["ratio_high"] < 1 for one in ratios):
            return result(
                NAME, "fail", f"Slower than its parent: {speed}.", f"quantgov targets; {fix}", evidence, **summary
            )
        if any(one["ratio_low"] < 1 for one in ratios):
            return result(
                NAME,
                "inconclusive",
                f"Perhaps slower than its parent: {speed}.",
                f"{fix}",
                evidence,
                **summary,
            )
    if target.must_improve in {"memory", "both"}:
        if memory is None:
            return result(NAME, "missing", "Not measured: resident memory.", fix, evidence, **summary)
        if memory >= 1:
            return result(NAME, "fail", f"It takes {memory:.2f} times its parent's memory.", fix, evidence, **summary)
    share = f", {memory:.0%} of the memory" if memory is not None else ""
    return result(NAME, "pass", f"{speed}{share}.", "", evidence, **summary)

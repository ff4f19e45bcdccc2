"""Is it faster or smaller than its parent, on the hardware that will serve it?"""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_quantgov.evidence.measure.fingerprint import differences
from mlflow_quantgov.evidence.predicates import Benchmark
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.policy.checks.interface import Question, compares, not_measured, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence

NAME = "benchmark"
KINDS = ("benchmark",)
CONFIDENCE = 0.95


def run(question: Question) -> CheckResult:
    """Numbers from another machine do not count."""
    facts = question.facts
    fix = f"quantgov benchmark {question.uri}"
    if facts.target is None:
        return result(
            NAME, "missing", "No deployment target is declared.", "log it with target=NAME (see: quantgov targets)"
        )
    if facts.target.hardware.fingerprint is None:
        capture = f"quantgov targets capture NAME --from {facts.target.name}"
        return result(
            NAME,
            "missing",
            f"Not measured: the target {facts.target.name} is a template without a captured machine.",
            capture,
        )
    found = [
        one
        for one in facts.of_kind("benchmark")
        if isinstance(one.content, Benchmark)
        and one.content.target_digest == facts.target.digest
        and compares(one.content, facts)
    ]
    if not found:
        why = not_measured("benchmark", facts, f"no benchmark on {facts.target.name}")
        return result(NAME, "missing", f"Not measured: {why}.", fix)
    newest = found[-1:]
    content = newest[0].content
    assert isinstance(content, Benchmark)
    elsewhere = differences(facts.target, content.fingerprint)
    if elsewhere:
        return result(NAME, "fail", f"Measured on another machine: {elsewhere[0]}.", fix, newest)
    otherwise = _measured_otherwise(facts.target, content)
    if otherwise:
        return result(NAME, "missing", f"Not measured as the target says: {otherwise}.", fix, newest)
    return _judge(question, content, newest, fix)


def _measured_otherwise(target: Target, content: Benchmark) -> str | None:
    """Words for a runtime or load that is not the target's."""
    for side in (content.parent, content.quantized):
        if side.runtime != target.runtime:
            return f"it ran in {side.runtime}, the target serves with {target.runtime}"
    if content.parent.version != content.quantized.version:
        return f"the sides ran in versions {content.parent.version} and {content.quantized.version}"
    measured = {(load.batch, load.prompt_tokens, load.output_tokens) for load in content.loads}
    wanted = [(load.batch, load.prompt_tokens, load.output_tokens) for load in target.loads]
    lacking = next((load for load in wanted if load not in measured), None)
    return "batch {}, {} and {} tokens was not timed".format(*lacking) if lacking else None


def _judge(question: Question, content: Benchmark, newest: Sequence[Evidence], fix: str) -> CheckResult:
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
        return result(NAME, "inconclusive", f"Too few rounds: {few}.", f"{fix} --rounds 9", evidence, **summary)
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
                f"{fix} --rounds 15",
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

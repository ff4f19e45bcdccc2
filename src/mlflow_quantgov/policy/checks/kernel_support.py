"""Does the target have an optimized kernel for these weights, and was it really used?"""

from __future__ import annotations

from mlflow_quantgov.evidence.predicates import Kernels
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult

NAME = "kernel-support"


def run(question: Question) -> CheckResult:
    """Emulation and silent dequantizing are failures; a table row without a probe is not enough where one is asked."""
    facts = question.facts
    fix = f"quantgov kernels {question.uri}"
    if facts.target is None:
        return result(
            NAME, "missing", "No deployment target is declared.", "log it with target=NAME (see: quantgov targets)"
        )
    found = [
        one
        for one in facts.of_kind("kernels")
        if isinstance(one.content, Kernels) and one.content.target_digest == facts.target.digest
    ]
    if not found:
        return result(NAME, "missing", f"Not measured: no kernel was confirmed for {facts.target.name}.", fix)
    newest = found[-1:]
    content = newest[0].content
    assert isinstance(content, Kernels)
    summary = content.recompute()
    support = summary["support"]
    if support == "unknown":
        return result(
            NAME, "missing", "Not measured: the kernel table has no row for these weights.", fix, newest, **summary
        )
    if support != "optimized":
        reason = f"{content.lookup.runtime} {support.replace('-', ' ')} with these weights ({content.lookup.row})."
        return result(NAME, "fail", reason, f"quantize it again as {facts.target.formats[0]}", newest, **summary)
    if question.gate.probe and not content.probed:
        why = content.not_probed_because or "it was not tried"
        return result(
            NAME, "missing", f"Not measured: the runtime did not load it where it was measured: {why}", fix, newest
        )
    return result(NAME, "pass", f"Optimized: {summary['kernel'] or content.lookup.kernel}.", "", newest, **summary)

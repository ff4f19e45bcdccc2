"""Does the target have an optimized kernel for these weights, and was it really used?"""

from __future__ import annotations

from mlflow_quantgov.evidence.predicates import Kernels
from mlflow_quantgov.policy.checks.interface import Question, is_about, result
from mlflow_quantgov.policy.decision import CheckResult

NAME = "kernel-support"
KINDS = ("kernels",)


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
        if isinstance(one.content, Kernels)
        and one.content.target_digest == facts.target.digest
        and (not one.content.probed or is_about(one.content.side, facts.model, one.content))
    ]
    if not found:
        return result(NAME, "missing", f"Not measured: no kernel was confirmed for {facts.target.name}.", fix)
    newest = found[-1:]
    content = newest[0].content
    assert isinstance(content, Kernels)
    # The row is the gate's own; of the statement, only what the runtime was seen to do counts.
    lookup = facts.kernel or content.lookup
    summary = content.model_copy(update={"lookup": lookup}).recompute() | {"table": lookup.row}
    support = summary["support"]
    if support == "unknown":
        return result(
            NAME, "missing", "Not measured: the kernel table has no row for these weights.", fix, newest, **summary
        )
    if support != "optimized":
        reason = f"{lookup.runtime} {support.replace('-', ' ')} with these weights ({lookup.row})."
        return result(NAME, "fail", reason, f"quantize it again as {facts.target.formats[0]}", newest, **summary)
    if question.gate.probe and not content.probed:
        why = content.not_probed_because or "it was not tried"
        return result(
            NAME, "missing", f"Not measured: the runtime did not load it where it was measured: {why}", fix, newest
        )
    if content.side is not None and content.side.runtime != facts.target.runtime:
        seen = f"It was seen in {content.side.runtime}, the target serves with {facts.target.runtime}."
        return result(NAME, "missing", f"Not measured: {seen}", fix, newest, **summary)
    return result(NAME, "pass", f"Optimized: {summary['kernel'] or lookup.kernel}.", "", newest, **summary)

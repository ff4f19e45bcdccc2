"""Does the target have an optimized kernel for these weights, and was it really used?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow_quantgov.evidence.predicates import Kernels, Lookup
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.evidence.version_ranges import admits
from mlflow_quantgov.policy.checks.interface import Question, is_about, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence

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
    return _judge(question, content, facts.kernel or content.lookup, facts.target, newest)


def _judge(
    question: Question, content: Kernels, lookup: Lookup, target: Target, newest: Sequence[Evidence]
) -> CheckResult:
    fix = f"quantgov kernels {question.uri}"
    summary = content.model_copy(update={"lookup": lookup}).recompute() | {"table": lookup.row}
    support, seen = summary["support"], content.seen()
    again = f"quantgov plan --target {target.name}"
    if seen is not None:
        share = content.expanded_share if seen == "dequantizes" else content.emulated_share
        part = f" {share:.0%} of" if share is not None and share < 1 else ""
        how = "expanded on loading" if seen == "dequantizes" else "expanded again for every product"
        said = f"{lookup.runtime} {seen}:{part} the quantized weights were {how} ({summary['kernel']})"
        other = "" if lookup.support == seen else f"; the table says {lookup.support} ({lookup.row})"
        return result(NAME, "fail", f"{said}{other}.", again, newest, **summary)
    if support == "unknown":
        return _unknown(lookup, target, question, newest, summary)
    if support != "optimized":
        part = f"{lookup.share:.0%} of the weights" if lookup.share < 1 else "these weights"
        reason = f"{lookup.runtime} {support.replace('-', ' ')} with {part} ({lookup.row}: {lookup.source})"
        saw = f"; the probe saw {summary['kernel']}, which does not settle how fast it is" if content.probed else ""
        return result(NAME, "fail", f"{reason}{saw}.", again, newest, **summary)
    if question.gate.probe and not content.probed:
        why = content.not_probed_because or "it was not tried"
        return result(
            NAME, "missing", f"Not measured: the runtime did not load it where it was measured: {why}", fix, newest
        )
    elsewhere = _elsewhere(content, target)
    if elsewhere:
        return result(NAME, "missing", f"Not measured: {elsewhere}.", fix, newest, **summary)
    contradiction = content.contradiction(lookup)
    if contradiction:
        reason = f"Not measured: {contradiction}. Table and probe have to agree."
        return result(NAME, "missing", reason, fix, newest, **summary)
    return result(NAME, "pass", f"Optimized: {summary['kernel'] or lookup.kernel}.", "", newest, **summary)


def _unknown(
    lookup: Lookup, target: Target, question: Question, newest: Sequence[Evidence], summary: dict[str, Any]
) -> CheckResult:
    """No row, a row that says nothing, or a target that leaves open which row it is."""
    fix = f"quantgov kernels {question.uri}"
    if lookup.depends_on:
        reason = f"Not measured: the target {target.name} does not say enough: {lookup.source}."
        if "cpu_flags" in lookup.depends_on:
            fix = f"quantgov targets capture mine --from {target.name}, and log it with --target mine.yaml"
        elif "runtime_version" in lookup.depends_on:
            fix = f"state runtime_version in a copy of the target {target.name}, and log it with --target"
        else:
            fix = f"state compute_capability under hardware in a copy of the target {target.name}, and log it with --target"
        return result(NAME, "missing", reason, fix, newest, **summary)
    said = f"the kernel table has no row for these weights ({lookup.row}: {lookup.source})"
    return result(NAME, "missing", f"Not measured: {said}.", fix, newest, **summary)


def _elsewhere(content: Kernels, target: Target) -> str | None:
    """Where the probe ran in something else than what the target serves with, in words."""
    if content.side is None:
        return None
    seen = content.side
    if seen.runtime != target.runtime:
        return f"It was seen in {seen.runtime}, the target serves with {target.runtime}"
    if admits(target.runtime_version, seen.version) is False:
        return f"It was seen in {seen.runtime} {seen.version}, the target serves with {target.runtime_version}"
    wanted = target.hardware.instruction_sets
    machine = content.fingerprint
    if target.hardware.device == "cpu" and machine is not None and wanted is not None:
        strange = [one for one in machine.cpu_flags if one not in wanted]
        if strange:
            return f"It was seen on a CPU with {', '.join(strange)}, which the target's does not have"
    return None

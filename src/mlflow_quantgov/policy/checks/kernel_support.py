"""Does the target have an optimized kernel for these weights, and was it really used?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.evidence.kernel_table import NO_TABLE
from mlflow_quantgov.evidence.predicates import Benchmark, Kernels, Lookup, Side
from mlflow_quantgov.evidence.predicates.benchmark_summary import judge
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.evidence.version_ranges import admits
from mlflow_quantgov.policy.checks.benchmark import timed_there
from mlflow_quantgov.policy.checks.interface import Question, device_of, is_about, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence

NAME = "kernel-support"
KINDS = ("kernels",)
_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16", "f64", "f32", "f16", "bf16"})
"""Types in which nothing quantized is stored, as torch, onnxruntime and llama.cpp name them."""
_FULL, _GROWN = 0.95, 1.25
"""Bytes in memory, over 16 bit for every weight and over those of the files, from which on the weights were expanded."""


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
    elsewhere = _elsewhere(content, target)
    # What another machine or version did with the weights says nothing of the target, for or against.
    seen = content.seen() if elsewhere is None else None
    support = seen or lookup.support
    summary["support"] = support
    again = f"quantgov plan --target {target.name}"
    if seen is not None:
        share = content.expanded_share if seen == "dequantizes" else content.emulated_share
        part = f" {share:.0%} of" if share is not None and share < 1 else ""
        how = "expanded on loading" if seen == "dequantizes" else "expanded again for every product"
        said = f"{lookup.runtime} {seen}:{part} the quantized weights were {how} ({summary['kernel']})"
        other = "" if lookup.support == seen else f"; the table says {lookup.support} ({lookup.row})"
        return result(NAME, "fail", f"{said}{other}.", again, newest, **summary)
    model = question.facts.model
    expanded = _expanded(content, model.quantization) if model and elsewhere is None else None
    if expanded:
        summary["support"] = "dequantizes"
        return result(NAME, "fail", f"{lookup.runtime} dequantizes: {expanded}.", again, newest, **summary)
    if support == "unknown":
        by_clock = _timed(content, lookup, question) if elsewhere is None else None
        if by_clock is not None:
            return replace(by_clock, evidence=(newest[0].digest, *by_clock.evidence), numbers=summary)
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
    if elsewhere:
        return result(NAME, "missing", f"Not measured: {elsewhere}.", fix, newest, **summary)
    if question.gate.probe and content.dequantized is None:
        unsaid = "the probe does not say whether the weights were expanded"
        return result(NAME, "missing", f"Not measured: {unsaid}.", fix, newest, **summary)
    if question.gate.probe and lookup.expects and not (summary["kernel"] or content.operators):
        unsaid = f"the probe names no kernel, and the table ({lookup.row}) expects {' or '.join(lookup.expects)}"
        return result(NAME, "missing", f"Not measured: {unsaid}.", fix, newest, **summary)
    contradiction = content.contradiction(lookup)
    if contradiction:
        reason = f"Not measured: {contradiction}. Table and probe have to agree."
        return result(NAME, "missing", reason, fix, newest, **summary)
    return result(NAME, "pass", f"Optimized: {summary['kernel'] or lookup.kernel}.", "", newest, **summary)


def _timed(content: Kernels, lookup: Lookup, question: Question) -> CheckResult | None:
    """What the clock says on the target itself where no source says anything: what is shown to be no slower is optimized.

    None where it says nothing: nobody has read the runtime at all, the row only hangs on something that the target leaves open,
    the probe did not see the stored weights used as they are, or nobody timed that kernel against the parent.
    """
    target, timed = question.facts.target, timed_there(question.facts)
    used = content.probed and content.dequantized is False
    if (
        lookup.row == NO_TABLE
        or lookup.depends_on
        or not used
        or content.side is None
        or target is None
        or timed is None
    ):
        return None
    assert isinstance(timed.content, Benchmark)
    kernels = {content.side.kernel, timed.content.quantized.kernel} - {None}
    if timed.content.parent_not_loaded is not None or len(kernels) > 1:
        return None
    verdict = judge(timed.content, "speed", target.phase)
    said = f"No source says how good {content.side.kernel or 'the kernel'} is ({lookup.row}); timed on the target it is"
    if verdict.outcome == "pass":
        return result(NAME, "pass", f"{said} no slower than its parent: {verdict.reason}.", "", (timed,))
    if verdict.outcome == "fail":
        return result(NAME, "fail", f"{said} {verdict.reason}.", f"quantgov plan --target {target.name}", (timed,))
    fix = f"quantgov benchmark {question.uri} --minutes 30 --width 0.02"
    return result(NAME, "inconclusive", f"{said} {verdict.reason}.", fix, (timed,))


def _unknown(
    lookup: Lookup, target: Target, question: Question, newest: Sequence[Evidence], summary: dict[str, Any]
) -> CheckResult:
    """No row, a row that says nothing, or a target that leaves open which row it is."""
    fix = f"quantgov kernels {question.uri}"
    if lookup.depends_on:
        reason = f"Not measured: the target {target.name} does not say enough: {lookup.source}."
        if "cpu_flags" in lookup.depends_on:
            settles = f"quantgov targets capture mine --from {target.name}"
        elif "runtime_version" in lookup.depends_on:
            settles = f"state runtime_version in mine.yaml, a copy of the target {target.name}"
        else:
            settles = f"state compute_capability under hardware in mine.yaml, a copy of the target {target.name}"
        # The target is the version's own: another one means another version.
        return result(NAME, "missing", reason, f"{settles}; {_log_again(question)}", newest, **summary)
    if lookup.row == NO_TABLE:
        fix = (
            f"name the runtime as a table does in mine.yaml, a copy of the target {target.name}; {_log_again(question)}"
        )
        return result(NAME, "missing", f"Not measured: {lookup.source}.", fix, newest, **summary)
    said = f"the kernel table does not say how well these weights are served ({lookup.row}: {lookup.source})"
    # Where no source says it, the clock may.
    return result(
        NAME, "missing", f"Not measured: {said}.", f"{fix}; quantgov benchmark {question.uri}", newest, **summary
    )


def _log_again(question: Question) -> str:
    return f"quantgov log PATH --target mine.yaml --parent ... --name ... --register {question.facts.name}"


def _elsewhere(content: Kernels, target: Target) -> str | None:
    """Where the probe ran in something else, or on something else, than what the target serves with, in words."""
    if content.side is None:
        return None
    seen = content.side
    if seen.runtime != target.runtime:
        return f"It was seen in {seen.runtime}, the target serves with {target.runtime}"
    if admits(target.runtime_version, seen.version) is False:
        return f"It was seen in {seen.runtime} {seen.version}, the target serves with {target.runtime_version}"
    return _on_other_hardware(content, seen, target)


def _on_other_hardware(content: Kernels, seen: Side, target: Target) -> str | None:
    """Where the probe ran on hardware for which the runtime may choose another kernel, in words."""
    hardware, machine = target.hardware, content.fingerprint
    if hardware.device == "endpoint":
        return None
    if machine is None:
        return "The statement does not say on which machine it was seen"
    device = device_of(seen)
    if device is not None and (device == "cpu") != (hardware.device == "cpu"):
        return f"It was seen on {device.upper()}, the target serves on {hardware.device.upper()}"
    if hardware.device == "cpu":
        known = hardware.instruction_sets
        strange = [one for one in machine.cpu_flags if known is not None and one not in known]
        return f"It was seen on a CPU with {', '.join(strange)}, which the target's does not have" if strange else None
    capability, wanted = machine.compute_capability, hardware.compute_capability
    if capability is not None and wanted and capability not in wanted:
        return f"It was seen on a GPU of compute capability {capability}, the target's have {', '.join(wanted)}"
    return None


def _expanded(content: Kernels, stored: Quantization) -> str | None:
    """Where types and bytes in memory are those of full precision, whatever else the statement says; in words."""
    if not content.probed or not stored.is_quantized:
        return None
    types = content.parameter_types
    if types and set(types) <= _FLOATS:
        return f"all that lies in memory is {' and '.join(sorted(types))}"
    resident, full = content.resident_bytes or 0, 2 * stored.total_parameters
    if resident >= _FULL * full and resident > _GROWN * stored.size_bytes:
        sizes = f"{resident / 1e6:,.0f} MB lie in memory, the files take {stored.size_bytes / 1e6:,.0f} MB"
        return f"{sizes} and 16 bit for every weight would be {full / 1e6:,.0f} MB"
    return None

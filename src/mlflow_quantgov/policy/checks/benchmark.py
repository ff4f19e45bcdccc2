"""Is it faster or smaller than its parent, on the hardware that will serve it?"""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_quantgov.evidence.measure.fingerprint import differences
from mlflow_quantgov.evidence.predicates import Benchmark, BenchmarkV1
from mlflow_quantgov.evidence.predicates.benchmark_summary import judge, summarize
from mlflow_quantgov.evidence.predicates.benchmark_v3 import NotLoaded
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.evidence.version_ranges import admits
from mlflow_quantgov.policy.checks.floors import judge_floors
from mlflow_quantgov.policy.checks.interface import Question, compares, device_of, not_measured, result
from mlflow_quantgov.policy.decision import CheckResult, Outcome
from mlflow_quantgov.policy.facts import Evidence, Facts

NAME = "benchmark"
KINDS = ("benchmark",)
_ROOM = 4
"""Free memory over the size of the files from which on loading cannot fail for memory: twice for float32, and twice that."""
SERVED = "openai"
"""Runtime of an endpoint: what serves behind it, its owner says."""


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
    found = _of_this_target(facts)
    if not found:
        why = not_measured("benchmark", facts, f"no benchmark on {facts.target.name}")
        return result(NAME, "missing", f"Not measured: {why}.", fix)
    newest = found[-1:]
    content = newest[0].content
    if isinstance(content, BenchmarkV1):
        old = (
            "an earlier version timed it, which took the parent as stored and not in its fastest lossless configuration"
        )
        return result(NAME, "missing", f"Not measured: {old}.", fix, newest)
    assert isinstance(content, Benchmark)
    if content.fingerprint is None:
        where = f"The hardware is not known: {content.hardware_unknown}."
        return result(NAME, "fail", where, f"on the machine that serves: {fix}", newest)
    elsewhere = differences(facts.target, content.fingerprint)
    if elsewhere:
        # A captured target is the machine's own word: what differs is measured there, or captured anew here.
        other = f"on the target's machine: {fix}"
        return result(NAME, "fail", f"Measured on another machine. {'; '.join(elsewhere)}.", other, newest)
    otherwise = _measured_otherwise(facts.target, content)
    if otherwise:
        return result(NAME, "missing", f"Not measured as the target says: {otherwise}.", fix, newest)
    return _judge(question, content, newest, fix)


def timed_there(facts: Facts) -> Evidence | None:
    """The newest benchmark of this version on its target, where it was made on the target's hardware and as it serves."""
    newest = _of_this_target(facts)[-1:]
    content = newest[0].content if newest else None
    if facts.target is None or not isinstance(content, Benchmark) or content.fingerprint is None:
        return None
    elsewhere = differences(facts.target, content.fingerprint) or _measured_otherwise(facts.target, content)
    return None if elsewhere else newest[0]


def _of_this_target(facts: Facts) -> list[Evidence]:
    """Benchmarks of this version and its parent for this very target, what counts most last."""
    return [
        one
        for one in facts.of_kind("benchmark")
        if isinstance(one.content, Benchmark | BenchmarkV1)
        and facts.target is not None
        and one.content.target_digest == facts.target.digest
        and compares(one.content, facts)
    ]


def _measured_otherwise(target: Target, content: Benchmark) -> str | None:
    """Words for a runtime, device or load that is not the target's."""
    for side in (content.parent, content.quantized):
        device, serves = device_of(side), target.hardware.device
        if device is not None and serves != "endpoint" and (device == "cpu") != (serves == "cpu"):
            return f"a side ran on {device.upper()}, the target serves on {serves.upper()}"
        served = content.provenance.imported and side.runtime == SERVED
        if side.runtime != target.runtime and not served:
            return f"it ran in {side.runtime}, the target serves with {target.runtime}"
        if not served and admits(target.runtime_version, side.version) is False:
            return f"it ran in {side.runtime} {side.version}, the target serves with {target.runtime_version}"
        if not served and content.parent_not_loaded is None and not content.parent_tries:
            return "it does not say in which lossless configurations the parent was tried"
    if content.parent.version != content.quantized.version:
        return f"the sides ran in versions {content.parent.version} and {content.quantized.version}"
    measured = {(load.batch, load.prompt_tokens, load.output_tokens) for load in content.loads}
    wanted = [(load.batch, load.prompt_tokens, load.output_tokens) for load in target.loads]
    lacking = next((load for load in wanted if load not in measured), None)
    return "batch {}, {} and {} tokens was not timed".format(*lacking) if lacking else None


def _judge(question: Question, content: Benchmark, newest: Sequence[Evidence], fix: str) -> CheckResult:
    target = question.facts.target
    assert target is not None
    summary = summarize(content)
    numbers = {key: value for key, value in summary.items() if key not in {"outcome", "reason"}}
    if content.parent_not_loaded is not None:
        doubt = _doubt(question, content.parent_not_loaded)
        if doubt is not None:
            return result(NAME, "missing", f"Not measured against the parent: {doubt}.", fix, newest, **numbers)
        verdict = judge_floors(content, question.gate.benchmark.floors, target.must_improve, target.phase)
    else:
        verdict = judge(content, target.must_improve, target.phase)
    outcomes: dict[str | None, Outcome] = {
        "pass": "pass", "fail": "fail", "inconclusive": "inconclusive", "missing": "missing"
    }  # fmt: skip
    outcome = outcomes[verdict.outcome]
    remedy = {
        "pass": "",
        "fail": f"quantgov targets   (formats that {target.runtime} runs well, best first); then {fix}",
        "inconclusive": f"{fix} --minutes 30 --width 0.02   (on a quiet machine)",
        "missing": fix,
    }[outcome]
    if content.parent_not_loaded is not None and outcome == "missing":
        floor = "peak_memory_gb" if target.must_improve == "memory" else "decode_tokens_per_second"
        remedy = f"add `benchmark: {{floors: {{{floor}: ...}}}}` to the gate in the server's policy"
    elif content.provenance.imported and outcome == "missing":
        remedy = f"set `must_improve: speed` in the target, since an endpoint shows no memory, or time the files: {fix}"
    return result(NAME, outcome, f"{verdict.reason[:1].upper()}{verdict.reason[1:]}.", remedy, newest, **numbers)


def _doubt(question: Question, lost: NotLoaded) -> str | None:
    """Why a parent cannot have run out of memory, by the size of its files as the gate itself read them."""
    lineage = question.facts.lineage
    size = lineage.parent.quantization.size_bytes if lineage and lineage.parent else 0
    if lost.cause != "memory" or not 0 < _ROOM * size < lost.free_memory_bytes:
        return None
    free = f"{lost.free_memory_bytes / 1e9:.1f} GB were free"
    return f"its files take {size / 1e9:.2g} GB and {free}, so memory cannot have run out"

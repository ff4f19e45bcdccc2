"""Is every required capability not worse than the parent's by more than its margin?"""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.evidence.predicates import FidelityV1, TaskEval, TaskResult
from mlflow_quantgov.evidence.predicates.fidelity import ENGAGED_TOKENS
from mlflow_quantgov.policy.checks.capability import judge
from mlflow_quantgov.policy.checks.interface import Question, compares, not_measured, result
from mlflow_quantgov.policy.checks.shared_items import shared_items
from mlflow_quantgov.policy.decision import CheckResult, Outcome
from mlflow_quantgov.policy.facts import Evidence

NAME = "task-eval"
KINDS = ("task-eval", "fidelity")


def run(question: Question) -> CheckResult:
    """All required capabilities must pass; nothing is averaged away."""
    tasks, evidence = newest_tasks(question)
    fix = f"quantgov evaluate {question.uri} --tasks tasks/"
    beside, fidelity = _fidelity(question)
    if beside.get("identical_tokens", 0) >= ENGAGED_TOKENS and beside["identical_tokens"] == beside["tokens"]:
        reason = (
            f"Quantization never engaged: all {beside['tokens']:,} log-probabilities equal the parent's bit by bit."
        )
        return result(NAME, "fail", reason, f"quantgov kernels {question.uri}", fidelity, fidelity=beside)
    if not tasks:
        why = not_measured("task-eval", question.facts, "no task evaluation against this parent")
        if question.yardsticks.tasks and any(_counts(one, question) for one in question.facts.of_kind("task-eval")):
            why = "none of the tasks that were asked is one that the policy pins"
        if beside:
            alone = f"perplexity {beside['parent_perplexity']:.2f} -> {beside['quantized_perplexity']:.2f}"
            why += f"; {alone} was measured, and shows nothing of what a model can no longer do"
        return result(NAME, "missing", f"Not measured: {why}.", fix, fidelity=beside)
    if not question.gate.capabilities:
        return result(
            NAME, "missing", "The policy names no capability that must hold.", "add capabilities to the policy"
        )
    if twice := shared_items(question.gate.capabilities, tasks):
        return result(NAME, "missing", f"Not measured: {twice}.", fix, evidence)
    judged = {
        name: judge(name, wanted, tasks, scored_only=question.gate.scored_only)
        for name, wanted in question.gate.capabilities.items()
    }
    numbers: dict[str, Any] = {name: verdict.numbers for name, verdict in judged.items()}
    if beside:
        numbers["fidelity"] = beside
    order: tuple[Outcome, ...] = ("fail", "missing", "inconclusive", "pass")
    worst = next(outcome for outcome in order if any(verdict.outcome == outcome for verdict in judged.values()))
    reasons = [verdict.reason for verdict in judged.values() if verdict.outcome == worst]
    text = "; ".join(reasons)
    if worst != "pass" and beside:
        text += (
            f" (perplexity {beside['parent_perplexity']:.2f} -> {beside['quantized_perplexity']:.2f}, reported beside)"
        )
    remedies = {"pass": "", "fail": "quantize it again with more bits, or with calibration data from production"}
    return CheckResult(NAME, worst, text, remedies.get(worst, fix), numbers, tuple(one.digest for one in evidence))


def newest_tasks(question: Question) -> tuple[dict[str, TaskResult], tuple[Evidence, ...]]:
    """The newest result of every task on exactly these two models (and only pinned tasks, where tasks are pinned)."""
    facts, pinned = question.facts, question.yardsticks.tasks
    tasks: dict[str, TaskResult] = {}
    used: dict[str, Evidence] = {}
    for one in facts.of_kind("task-eval"):
        content = one.content
        if not isinstance(content, TaskEval) or not _counts(one, question):
            continue
        for task in content.tasks:
            if pinned and not any(pin.fits(task) for pin in pinned):
                continue
            before = tasks.get(task.task)
            # A look at a few of its items does not replace all of them, unless nobody vouches for those.
            vouched = one.rank[0] and not (before and used[task.task].rank[0])
            if (
                vouched
                or before is None
                or before.task_digest != task.task_digest
                or len(task.items) >= len(before.items)
            ):
                tasks[task.task] = task
                used[task.task] = one
    return tasks, tuple({one.digest: one for one in used.values()}.values())


def _counts(one: Evidence, question: Question) -> bool:
    return isinstance(one.content, TaskEval) and compares(one.content, question.facts)


def _fidelity(question: Question) -> tuple[dict[str, Any], tuple[Evidence, ...]]:
    """The newest fidelity summary against this parent, and where it stands; reported, never sufficient."""
    for one in reversed(question.facts.of_kind("fidelity")):
        if isinstance(one.content, FidelityV1) and compares(one.content, question.facts):
            summary = {key: value for key, value in one.content.recompute().items() if key != "worst_documents"}
            return summary, (one,)
    return {}, ()

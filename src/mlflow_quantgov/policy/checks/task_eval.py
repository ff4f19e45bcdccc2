"""Is every required capability not worse than the parent's by more than its margin?"""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.evidence.predicates import FidelityV1, TaskEval, TaskResult
from mlflow_quantgov.evidence.predicates.fidelity import ENGAGED_TOKENS
from mlflow_quantgov.evidence.statistics import Comparison, compare
from mlflow_quantgov.policy.checks.clusters import clusters_of
from mlflow_quantgov.policy.checks.interface import Question, compares, not_measured, result
from mlflow_quantgov.policy.decision import CheckResult, Outcome
from mlflow_quantgov.policy.facts import Evidence
from mlflow_quantgov.policy.schema import Capability

NAME = "task-eval"


def run(question: Question) -> CheckResult:
    """All required capabilities must pass; nothing is averaged away."""
    tasks, evidence = newest_tasks(question)
    fix = f"quantgov evaluate {question.uri} --tasks tasks/"
    beside = _fidelity(question)
    if beside.get("identical_tokens", 0) >= ENGAGED_TOKENS and beside["identical_tokens"] == beside["tokens"]:
        reason = (
            f"Quantization never engaged: all {beside['tokens']:,} log-probabilities equal the parent's bit by bit."
        )
        return result(NAME, "fail", reason, f"quantgov kernels {question.uri}", evidence, fidelity=beside)
    if not tasks:
        why = not_measured("task-eval", question.facts, "no task evaluation against this parent")
        return result(NAME, "missing", f"Not measured: {why}.", fix, fidelity=beside)
    if not question.gate.capabilities:
        return result(
            NAME, "missing", "The policy names no capability that must hold.", "add capabilities to the policy"
        )
    judged = {name: _judge(name, wanted, tasks, question) for name, wanted in question.gate.capabilities.items()}
    numbers: dict[str, Any] = {name: verdict[2] for name, verdict in judged.items()}
    if beside:
        numbers["fidelity"] = beside
    order: tuple[Outcome, ...] = ("fail", "missing", "inconclusive", "pass")
    worst = next(outcome for outcome in order if any(verdict[0] == outcome for verdict in judged.values()))
    reasons = [verdict[1] for verdict in judged.values() if verdict[0] == worst]
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
        if not isinstance(content, TaskEval) or not compares(content, facts):
            continue
        for task in content.tasks:
            if pinned and not any(pin.fits(task) for pin in pinned):
                continue
            before = tasks.get(task.task)
            # A look at a few of its items does not replace all of them.
            if before is None or before.task_digest != task.task_digest or len(task.items) >= len(before.items):
                tasks[task.task] = task
                used[task.task] = one
    return tasks, tuple({one.digest: one for one in used.values()}.values())


def _judge(
    name: str, wanted: Capability, tasks: dict[str, TaskResult], question: Question
) -> tuple[Outcome, str, dict[str, Any]]:
    """Outcome, reason and numbers of one capability, over the items of all its tasks."""
    mine = [one for one in tasks.values() if (one.task in wanted.tasks if wanted.tasks else one.capability == name)]
    items = sum(len(one.items) for one in mine)
    if not mine:
        return "missing", f"Not measured: no task for {name} (metadata.capability, or --capability TASK={name})", {}
    if not question.gate.scored_only and all(one.output_type == "multiple_choice" for one in mine):
        return (
            "missing",
            f"{name} rests on multiple choice alone, which barely moves when a model breaks",
            {"items": items},
        )
    low, high = wanted.score_range
    if any(
        not low <= side.score <= high for task in mine for item in task.items for side in (item.parent, item.quantized)
    ):
        why = f"{name} has scores outside {low:g} to {high:g}; the policy's margin means nothing for them"
        return "missing", why, {"items": items}
    found = _compare(mine, wanted)
    numbers = found.to_dict()
    before, after = f"{found.parent_mean:.1%}", f"{found.quantized_mean:.1%}"
    if found.outcome == "fail":
        return "fail", f"{name} fell from {before} to {after} on {items} items (margin {wanted.margin:.1%})", numbers
    for task, one in ((task, _compare([task], wanted)) for task in mine if len(mine) > 1):
        # Other tasks of the same capability must not hide one that was lost.
        if one.outcome == "fail":
            fell = f"{one.parent_mean:.1%} to {one.quantized_mean:.1%}"
            return "fail", f"{name}: the task {task.task} alone fell from {fell} (margin {wanted.margin:.1%})", numbers
    if found.parent_mean - low <= wanted.margin:
        return "inconclusive", f"the parent scores {before} on {name}: a loss of the margin could not be seen", numbers
    if items < wanted.min_items:
        return "inconclusive", f"{name} has {items} items, the policy wants {wanted.min_items}", numbers
    if found.outcome == "inconclusive":
        more = f"about {found.items_needed:,} items would settle it" if found.items_needed else "more items are needed"
        loss = f"the loss may be as large as {-found.lower:.1%}, margin {wanted.margin:.1%}"
        return "inconclusive", f"{name}: {before} -> {after} on {items} items; {loss}; {more}", numbers
    return "pass", f"{name} held: {before} -> {after} on {items} items (at worst {-found.lower:.1%} lost)", numbers


def _compare(tasks: list[TaskResult], wanted: Capability) -> Comparison:
    parent, quantized = [], []
    for task in tasks:
        clusters = clusters_of(task.items)
        for item, cluster in zip(task.items, clusters, strict=True):
            identity, group = f"{task.task}/{item.id}", f"{task.task}/{cluster}"
            parent.append({"id": identity, "score": item.parent.score, "group": group})
            quantized.append({"id": identity, "score": item.quantized.score, "group": group})
    return compare(parent, quantized, margin=wanted.margin, confidence=wanted.confidence)


def _fidelity(question: Question) -> dict[str, Any]:
    """The newest fidelity summary against this parent; reported, never sufficient."""
    for one in reversed(question.facts.of_kind("fidelity")):
        if isinstance(one.content, FidelityV1) and compares(one.content, question.facts):
            return {key: value for key, value in one.content.recompute().items() if key != "worst_documents"}
    return {}

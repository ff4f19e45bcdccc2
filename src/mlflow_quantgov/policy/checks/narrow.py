"""What a version below the policy's least width must show, in the order in which it is come by.

A budget for the width; a version of the same parent at the least width or more, evaluated first; training whose
checkpoint the bytes bear out; and an evaluation against the original that stays within the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mlflow_quantgov.checkpoint import Fault
from mlflow_quantgov.errors import pasted
from mlflow_quantgov.evidence.predicates import TaskResult, Training
from mlflow_quantgov.policy.checks.capability import Verdict, judge
from mlflow_quantgov.policy.checks.interface import Question, not_measured
from mlflow_quantgov.policy.checks.task_eval import newest_tasks
from mlflow_quantgov.policy.decision import Outcome
from mlflow_quantgov.policy.facts import Evidence, Sibling, named_by, training_of
from mlflow_quantgov.policy.schema import Capability
from mlflow_quantgov.policy.trust import uncounted

_REGISTER = "quantgov log-parent CHECKPOINT --name NAME-trained --register NAME"
_LATENT = f"register the latent full-precision weights of the training: {_REGISTER}"
_TRAIN = f"train for this width from the original, then {_REGISTER}"
_FIXES: dict[Fault, tuple[Outcome, str]] = {
    "unregistered": ("missing", _REGISTER),
    "other-weights": ("fail", ""),
    "original": ("fail", _TRAIN),
    "quantized": ("fail", _LATENT),
    "on-grid": ("fail", _LATENT),
    "structure": ("fail", _TRAIN),
    "stranger": ("fail", _TRAIN),
    "other-rounding": ("fail", ""),
    "unproved-rounding": (
        "fail",
        "quantize the checkpoint again in a format that can be compared (docs/explanation/descent.md)",
    ),
    "untrained": (
        "fail",
        "train every matrix that lies below the least width, or keep it there; quantize the checkpoint, and log that",
    ),
}
"""What a fault of the checkpoint makes of the check, and what mends it; empty: another training statement does."""


@dataclass(frozen=True)
class Condition:
    """One thing that a narrow version must show."""

    name: Literal["budget", "wider", "order", "training", "within"]
    """`order`: a wider version was evaluated, after this one; `budget`: the policy itself says too little."""
    outcome: Outcome
    reason: str
    fix: str = ""
    evidence: tuple[Evidence, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)


def conditions(question: Question, bits: float) -> tuple[Condition, ...]:
    """Every condition, met or not.

    Args:
        question: Whose version is narrower than the gate's least width.
        bits: Its narrowest width.
    """
    budget = question.gate.budget_for(bits)
    first = (_unbudgeted(question, bits),) if budget is None else ()
    last = (_within(question, bits, budget),) if budget is not None else ()
    return (*first, _wider_was_measured(question), _trained(question), *last)


def _unbudgeted(question: Question, bits: float) -> Condition:
    lowest = min(question.gate.budgets, default=None)
    known = f"; the lowest is for {lowest:g} bit" if lowest is not None else ""
    fix = f"stay at {question.gate.least_bits:g} bit, or ask for a budget in the policy's gate: budgets: {{{bits:g}: 0.02}}"
    return Condition("budget", "missing", f"The policy gives no quality budget for {bits:g} bit{known}.", fix)


def _wider_was_measured(question: Question) -> Condition:
    """Start at four bit, measure: some version of the same parent at that width was evaluated before this one was."""
    gate, facts = question.gate, question.facts
    least = f"{gate.least_bits:g} bit or more"
    own = _gating(question, newest_tasks(question))
    late: list[Sibling] = []
    partly: list[tuple[str, str]] = []
    for sibling in facts.siblings:
        if (sibling.narrowest_bits or 0) < gate.least_bits:
            continue
        verdicts, evidence = _judged(question, sibling, lambda one: all(_precedes(one, other) for other in own))
        lacking = [name for name, verdict in verdicts.items() if not _is_measured(verdict, gate.capabilities[name])]
        if verdicts and not lacking:
            said = ", ".join(f"{name} {verdict.outcome}" for name, verdict in verdicts.items())
            reason = f"{sibling.uri} at {sibling.narrowest_bits:g} bit was evaluated first ({said})."
            numbers = {"first": {"version": sibling.uri, "bits": sibling.narrowest_bits} | _outcomes(verdicts)}
            return Condition("wider", "pass", reason, "", evidence, numbers)
        everything, _ = _judged(question, sibling, lambda _: True)
        if everything and all(_is_measured(one, gate.capabilities[name]) for name, one in everything.items()):
            late.append(sibling)
        else:
            short = [name for name, one in everything.items() if not _is_measured(one, gate.capabilities[name])]
            said = f"without {', '.join(short) or 'the capabilities of this gate'}"
            if sibling.aside:
                rest = f"what there is does not count: {uncounted(gate, sibling.aside[-1:])}"
                said = f"{said}, and {rest}" if everything else f"and {rest}"
            partly.append((sibling.uri, said))
    if late:
        reason = f"{late[0].uri} was evaluated only after this version: the order is to start at {least} and to measure that."
        return Condition("order", "missing", reason, f"quantgov evaluate {question.uri} --tasks tasks/")
    if partly:
        uri, said = partly[0]
        reason = f"No version of the same parent at {least} was evaluated whole: {uri} was evaluated {said}."
        fix = f"quantgov evaluate {pasted(uri)} --tasks tasks/; quantgov evaluate {question.uri} --tasks tasks/"
        return Condition("wider", "missing", reason, fix)
    parent = facts.lineage.parent_uri if facts.lineage else None
    log = f"quantgov log PATH --parent {pasted(parent or 'models:/NAME/VERSION')} --target TARGET --name NAME --register {pasted(facts.name)}"
    fix = f"quantize the parent at {gate.least_bits:g} bit; {log}; quantgov evaluate {pasted(f'models:/{facts.name}/VERSION')} --tasks tasks/"
    return Condition("wider", "missing", f"No version of the same parent at {least} was evaluated first.", fix)


def _gating(question: Question, found: tuple[dict[str, TaskResult], tuple[Evidence, ...]]) -> tuple[Evidence, ...]:
    """The statements with this version's results on tasks that measure what the gate demands."""
    wanted = question.gate.capabilities
    named = {choice.task for one in wanted.values() for choice in one.tasks}
    tasks, evidence = found
    gating = {name for name, one in tasks.items() if one.capability in wanted or name in named}
    return tuple(
        one for one in evidence if gating & {task.task for task in getattr(one.content, "tasks", ())}
    )  # fmt: skip


def _judged(
    question: Question, sibling: Sibling, counts: Callable[[Evidence], bool]
) -> tuple[dict[str, Verdict], tuple[Evidence, ...]]:
    """What the gate would say of each capability of a sibling, by those of its evaluations that count."""
    evidence = tuple(one for one in sibling.evidence if counts(one))
    asked = replace(question, facts=replace(question.facts, model=sibling.model, evidence=evidence))
    tasks, used = newest_tasks(asked)
    if not tasks:
        return {}, ()
    gate = question.gate
    return {
        name: judge(name, one, tasks, scored_only=gate.scored_only) for name, one in gate.capabilities.items()
    }, used


def _is_measured(verdict: Verdict, wanted: Capability) -> bool:
    """Whether a capability was measured at all, whatever came out."""
    items = verdict.numbers.get("items", 0)
    return verdict.outcome != "missing" and items >= wanted.min_items


def _precedes(one: Evidence, other: Evidence) -> bool:
    """Whether it was measured and received before another; without a gate nobody received anything."""
    if one.content.provenance.measured_at >= other.content.provenance.measured_at:
        return False
    if one.received_at is None or other.received_at is None:
        return True
    return one.received_at < other.received_at


def _trained(question: Question) -> Condition:
    """A training statement, and bytes that bear it out: original, checkpoint, rounding."""
    facts, stated = question.facts, training_of(question.facts)
    record = f"quantgov training {question.uri} --checkpoint models:/NAME/VERSION --run RUN --steps STEPS --data FILE --code VERSION"
    if stated is None or not isinstance(stated.content, Training):
        old = bool(facts.of_kind(Training.KIND))
        why = "where its checkpoint is registered is not stated" if old else "none is recorded for these weights"
        return Condition("training", "missing", f"It needs quantization-aware training, and {why}.", record)
    content, found = stated.content, facts.checkpoint
    numbers: dict[str, Any] = {
        "training": {"run": content.run, "steps": content.steps, "checkpoint": content.checkpoint_uri}
    }
    if found is None or found.named != named_by(stated):
        reason = f"The checkpoint {content.checkpoint_uri} was not compared with the parent, which has to be proved up to structure."
        fix = f"quantgov check {question.uri} --to @champion"
        return Condition("training", "missing", reason, fix, (stated,), numbers)
    if found.kinship is not None and (least := found.kinship.farthest) is not None:
        numbers["training"] |= {"moved_by": found.kinship.distance, "least_correlation": least.correlation}
    if (fault := found.fault) is not None:
        outcome, fix = _FIXES[fault[0]]
        return Condition("training", outcome, fault[1], fix or record, (stated,), numbers)
    assert found.kinship is not None
    moved = f"which moved its weights by {found.kinship.distance:.1%} of their norm"
    reason = f"It is the rounding of {found.uri}, trained from the original for {content.steps:,} steps (run {content.run}), {moved}."
    return Condition("training", "pass", reason, "", (stated,), numbers)


def _within(question: Question, bits: float, budget: float) -> Condition:
    """Every capability against the original, by the evaluation that also counts elsewhere, at this width's budget."""
    gate, fix = question.gate, f"quantgov evaluate {question.uri} --tasks tasks/"
    if not gate.capabilities:
        return Condition(
            "budget",
            "missing",
            f"The budget for {bits:g} bit is one of capabilities, and the policy's gate names none.",
            "add capabilities to the gate in the policy",
        )
    tasks, evidence = newest_tasks(question)
    if not tasks:
        why = not_measured("task-eval", question.facts, "no task evaluation against the original")
        return Condition("within", "missing", f"Whether it stays within the budget is not measured: {why}.", fix)
    judged = {
        name: judge(name, _at(wanted, budget), tasks, scored_only=gate.scored_only)
        for name, wanted in gate.capabilities.items()
    }
    numbers = {"budget": {"width": bits, "share": budget} | _outcomes(judged)}
    order: tuple[Outcome, ...] = ("fail", "missing", "inconclusive")
    worst = next((one for one in order if any(verdict.outcome == one for verdict in judged.values())), None)
    if worst is None:
        reason = f"Every capability stays within the budget of {budget:.1%} for {bits:g} bit."
        return Condition("within", "pass", reason, "", evidence, numbers)
    reasons = "; ".join(verdict.reason for verdict in judged.values() if verdict.outcome == worst)
    remedy = f"train longer, or stay at {gate.least_bits:g} bit" if worst == "fail" else fix
    return Condition(
        "within", worst, f"The budget for {bits:g} bit is {budget:.1%}: {reasons}.", remedy, evidence, numbers
    )


def _at(wanted: Capability, budget: float) -> Capability:
    """A capability with the budget as its margin, in units of its scores."""
    low, high = wanted.score_range
    return wanted.model_copy(update={"margin": budget * (high - low)})


def _outcomes(verdicts: dict[str, Verdict]) -> dict[str, Any]:
    keys = ("estimate", "lower", "upper", "margin", "items")
    return {
        name: {"outcome": verdict.outcome} | {key: verdict.numbers[key] for key in keys if key in verdict.numbers}
        for name, verdict in verdicts.items()
    }

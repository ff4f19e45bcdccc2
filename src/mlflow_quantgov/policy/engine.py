"""(policy, facts, destination) -> Decision. Pure: the same input gives the same decision, here and on the gate."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any

from mlflow_quantgov.artifact.plugins import entry_points
from mlflow_quantgov.errors import pasted
from mlflow_quantgov.evidence.predicates import Benchmark
from mlflow_quantgov.policy import spot_check_demand, spot_checks, stores, trust
from mlflow_quantgov.policy.audit import answers
from mlflow_quantgov.policy.checks import (
    approvals,
    benchmark,
    bit_width,
    calibration,
    format_fit,
    identity,
    kernel_support,
    lineage,
    rollback_archive,
    task_eval,
)
from mlflow_quantgov.policy.checks.interface import Check, Question
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.facts import Facts
from mlflow_quantgov.policy.matching import gate_for, gate_name, observes, rule_for
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import Gate, ParentPin, Policy, Rule
from mlflow_quantgov.policy.waivers import waive

ENTRY_POINTS = "mlflow_quantgov.checks"
OWN: dict[str, Check] = {
    module.NAME: module.run
    for module in (
        identity,
        lineage,
        task_eval,
        calibration,
        bit_width,
        kernel_support,
        benchmark,
        format_fit,
        rollback_archive,
        approvals,
    )
}
KINDS: dict[str, tuple[str, ...]] = {
    module.NAME: module.KINDS
    for module in (lineage, task_eval, calibration, bit_width, kernel_support, benchmark, rollback_archive)
}
"""Which evidence a check rests on."""
# What can be said of files that nobody could read; the others would miss what is there.
_OF_UNREAD_FILES = frozenset({identity.NAME, bit_width.NAME, approvals.NAME})
# What a full-precision model is judged by: that it is what was logged, an allowed original, and can be brought back.
PARENT_CHECKS = (identity.NAME, lineage.NAME, rollback_archive.NAME, approvals.NAME)


def decide(policy: Policy, facts: Facts, destination: str, *, what_if: bool = False) -> Decision:
    """Decide one request.

    Args:
        policy: What is demanded.
        facts: What is known.
        destination: `@alias` or a stage.
        what_if: Asked with a policy that is not the gate's own.

    Returns:
        `allowed` only if every required check passes or does not apply.
    """
    name = gate_name(policy, facts.name, destination)
    gate, rule = gate_for(policy, facts.name, destination), rule_for(policy, facts.name)
    if gate is None or rule is None:
        summary = "This destination is open." if name == "open" else _unnamed(rule, facts, destination)
        return _decision(policy, facts, destination, name == "open", summary=summary, what_if=what_if)
    if facts.role == "other":
        summary = "No language-model weights: such models pass as on plain MLflow."
        if rule.other == "refuse":
            summary = "The policy lets only language models whose weights can be read through here."
        elsewhere = stores.objection(rule.stores, facts.files_at)
        if elsewhere is not None:
            summary = f"{elsewhere} Fix: {identity.STORE_FIX}"
        allowed = rule.other == "open" and elsewhere is None
        return _decision(policy, facts, destination, allowed, summary=summary, what_if=what_if)
    counted, aside = trust.set_aside(gate, facts)
    counted, refuted = spot_checks.set_aside(gate, counted)
    uri = pasted(f"models:/{facts.name}/{facts.version}")
    checks = tuple(
        spot_checks.explain(
            trust.explain(
                _run(check, Question(gate, rule.yardsticks, counted, stores=rule.stores)),
                KINDS.get(check, ()),
                gate,
                counted,
                aside,
            ),
            refuted,
            gate,
            facts,
        )
        for check in _required(gate, facts)
        if check != approvals.NAME
    )
    checks += _approved(
        Question(gate, rule.yardsticks, counted, destination, policy.digest, tuple(trust.used(counted, checks)))
    )
    checks = spot_check_demand.demanded(gate, facts, checks, uri)
    labels = _labels(rule, counted, checks) + tuple(trust.labels(counted, checks, aside, gate))
    labels += tuple(spot_checks.labels(gate, facts, refuted))
    chosen = [label for label in labels if label.startswith("chosen by author")]
    strict = () if gate.author_may_choose or not chosen else (_unpinned(chosen, rule, counted),)
    checks = trust.separation(gate, counted, checks, uri) + strict
    checks = waive(checks, counted)
    labels += tuple(
        f"waived: {one.check} by {one.numbers['waiver']['by']}" for one in checks if one.outcome == "waived"
    )
    approved = [one["person"] for check in checks for one in check.numbers.get("approved_by", ())]
    labels += (f"approved by {', '.join(approved)}",) if approved else ()
    if approved and facts.requester_verified is False:
        labels += (f"not verified: that it is {facts.requester} who asks",)
    allowed = bool(checks) and not any(check.refuses for check in checks)
    return _decision(policy, facts, destination, allowed, checks=checks, labels=labels, what_if=what_if)


def all_checks() -> dict[str, Check]:
    """Our own checks, and those that third parties add by entry point."""
    return {**_of_others(), **OWN}


@cache
def _of_others() -> dict[str, Check]:
    """Loaded once: what is installed does not change while a process runs."""
    return {point.name: point.load() for point in entry_points(ENTRY_POINTS)}


def _required(gate: Gate, facts: Facts) -> tuple[str, ...]:
    if facts.role == "parent":
        return tuple(name for name in gate.checks if name in PARENT_CHECKS)
    return gate.checks


def _approved(question: Question) -> tuple[CheckResult, ...]:
    """The check of approvals, last: whoever measured what the others rest on may be barred from approving."""
    wanted = approvals.NAME in _required(question.gate, question.facts)
    return (_run(approvals.NAME, question),) if wanted else ()


def _run(name: str, question: Question) -> CheckResult:
    if question.facts.role == "unknown" and name not in _OF_UNREAD_FILES:
        reason = f"Not measured: the files could not be read ({identity.NAME} says why)."
        return CheckResult(name, "missing", reason, "quantgov inspect PATH")
    try:
        return all_checks()[name](question)
    except Exception as error:  # noqa: BLE001  (a check that breaks refuses; it must never let anything through)
        reason = f"The check itself failed: {type(error).__name__}: {str(error)[:200]}"
        return CheckResult(name, "fail", reason, "report this as a defect of mlflow-quantgov")


def _unnamed(rule: Rule | None, facts: Facts, destination: str) -> str:
    """Why a destination that no rule names is refused, and which one may have been meant."""
    known = list(rule.destinations) if rule else []
    folded = {fold(name).lstrip("@"): name for name in known}
    near = difflib.get_close_matches(fold(destination).lstrip("@"), list(folded), n=1)
    said = f"No rule of the policy names {destination}"
    if not near:
        return f"{said}; it names {', '.join(known) or 'none for this model'}."
    uri = pasted(f"models:/{facts.name}/{facts.version}")
    return f"{said}; did you mean {folded[near[0]]}? Fix: quantgov check {uri} --to {pasted(folded[near[0]])}"


def _labels(rule: Rule, facts: Facts, checks: tuple[CheckResult, ...]) -> tuple[str, ...]:
    """What decides nothing by itself, and must be seen: who chose the yardstick, and what nobody saw run."""
    asked = {check.check for check in checks if check.outcome != "not-applicable"}
    pins = rule.yardsticks
    parent = pins.standing_of(facts.original)
    unpinned = [
        label
        for label, check, pinned in (
            ("parent", "lineage", pins.parents),
            ("configuration and tokenizer of the parent", "lineage", parent != "weights-pinned"),
            ("tasks", "task-eval", pins.tasks),
            ("production sample", "calibration", pins.production),
            ("target", "format-fit", pins.targets),
        )
        if check in asked and not pinned
    ]
    labels = [f"chosen by author: {', '.join(unpinned)}"] if unpinned else []
    used = trust.used(facts, checks)
    imported = sorted({one.kind for one in used if one.content.provenance.imported})
    labels += [f"imported: {', '.join(imported)}"] if imported else []
    if any(isinstance(one.content, Benchmark) and one.content.parent_not_loaded for one in used):
        labels.append("not compared with its parent: benchmark (the parent did not load where it was measured)")
    return tuple(labels)


def _unpinned(chosen: list[str], rule: Rule, facts: Facts) -> CheckResult:
    """Refused where the policy itself shall have chosen; of the parent, what to paste there is known."""
    fix, parent = "pin their digests in the policy", facts.original
    if parent is not None and rule.yardsticks.standing_of(parent) in {"nothing-pinned", "weights-pinned"}:
        fix += f"; the parent, if these are the original's own files: parents: [{ParentPin.of(parent).line}]"
    return CheckResult("lineage", "missing", f"The policy wants pinned yardsticks; {chosen[0]}.", fix)


def _decision(
    policy: Policy,
    facts: Facts,
    destination: str,
    allowed: bool,
    *,
    checks: tuple[CheckResult, ...] = (),
    labels: tuple[str, ...] = (),
    summary: str = "",
    what_if: bool = False,
) -> Decision:
    return Decision(
        allowed=allowed,
        destination=destination,
        model=facts.name,
        version=facts.version,
        policy_name=policy.name,
        policy_digest=policy.digest,
        mode="observe" if observes(policy, facts.name) else "enforce",
        checks=checks,
        self_audit=answers(checks) if checks and facts.role != "parent" else (),
        what_if=what_if,
        labels=labels,
        summary=summary,
        keys=facts.keys,
        decided_at=facts.now.isoformat(),
        signatures=tuple(_signatures(facts, checks)),
        facts=facts,
        judged=_judged(facts),
    )


def _judged(facts: Facts) -> dict[str, Any]:
    """What identifies the version that is judged: its number may be given away again, its source may be re-pointed."""
    lineage = facts.lineage
    return {
        "created": facts.created,
        "source": facts.source,
        "location": facts.location,
        "manifest": facts.model.manifest if facts.model else None,
        "parent": lineage.parent_uri if lineage else None,
        "rolls_back_to": lineage.parent_version if lineage else None,
    }


def _signatures(facts: Facts, checks: tuple[CheckResult, ...]) -> Iterator[dict[str, Any]]:
    """Who signed what a decision rests on, as it stood then."""
    for one in trust.used(facts, checks):
        for signature in one.signatures:
            yield {
                "statement": one.digest,
                "kind": one.kind,
                "key": signature.key,
                "name": signature.name,
                "roles": list(signature.roles),
                "standing": signature.standing,
                "received_at": signature.received_at.isoformat() if signature.received_at else None,
            }

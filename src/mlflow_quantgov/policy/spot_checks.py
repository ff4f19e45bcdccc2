"""What a failed spot-check takes away, by whose word, and what of spot-checks must be seen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from mlflow_quantgov.errors import pasted
from mlflow_quantgov.evidence.predicates import SpotCheck, TaskEval
from mlflow_quantgov.evidence.signing import Role
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence, Facts, Sibling
from mlflow_quantgov.policy.schema import Gate
from mlflow_quantgov.policy.spot_check_faults import evaluations_of, fault, pairs
from mlflow_quantgov.policy.trust import wanted_role, why_not

ROLE: Role = "measurer"
"""Whose signature counts under an evaluation or a spot-check where a gate names no role for the kind."""
RESTS_ON_TASKS = ("task-eval", "bit-width")
"""Checks that read task evaluations."""


def role_for(gate: Gate, kind: str = SpotCheck.KIND) -> Role:
    """The role whose signature vouches for a spot-check (or for an evaluation)."""
    return wanted_role(gate, kind) or ROLE


def set_aside(gate: Gate, facts: Facts) -> tuple[Facts, dict[str, Evidence]]:
    """Facts without the evaluations that a spot-check has refuted, and for each such evaluation the spot-check.

    Also of other versions that a check reads. A failed spot-check refutes if somebody with the role has signed it. One that
    nobody vouches for refutes only what nobody vouches for either, and only where the gate asks for no spot-checks: else any
    stranger could sink any release.

    Args:
        gate: Whose signatures it wants, and whether it asks for spot-checks.
        facts: What counts under its signatures.
    """
    refuted = _refuted(gate, facts)
    if not refuted:
        return facts, {}
    siblings = tuple(_without(one, refuted) for one in facts.siblings)
    left = tuple(one for one in facts.evidence if one.digest not in refuted)
    return replace(facts, evidence=left, siblings=siblings), refuted


def explain(found: CheckResult, refuted: dict[str, Evidence], gate: Gate, facts: Facts) -> CheckResult:
    """A result that misses an evaluation, with the spot-check that took it away, and with what counts for more."""
    mine = {digest: one for digest, one in refuted.items() if facts.model and one.subject == facts.model.weights}
    # Below four bit the evaluations of wider versions are read too.
    read = {"task-eval": mine, "bit-width": refuted}.get(found.check, {})
    if not found.refuses or not read:
        return found
    role = role_for(gate)
    said = "; ".join(
        f"the evaluation {digest[:19]} does not count, a spot-check of it failed ({one.content.stated()['reason']}), {_by(one, role)}"
        for digest, one in read.items()
    )
    reason, fix = f"{found.reason} Refuted: {said}.", found.fix
    bare = [digest for digest, one in read.items() if digest in mine and one.signed_by(role) is None]
    if bare and facts.keys:
        more = f"--statement {bare[-1]} --key NAME.key.pem"
        reason += f" Nobody vouches for either: a spot-check that agrees, signed by a {role}, counts for more."
        fix += f"; or have a {role} run: quantgov spot-check {pasted(f'models:/{facts.name}/{facts.version}')} {more}"
    return replace(found, reason=reason, fix=fix, evidence=(*found.evidence, *(one.digest for one in read.values())))


def labels(gate: Gate, facts: Facts, refuted: Collection[str]) -> list[str]:
    """What decides nothing and must be seen.

    Evaluations that were refuted, failed spot-checks that refute nothing, spot-checks that are none, draws without an answer.

    Args:
        gate: Whose signatures it wants.
        facts: Everything that is known, whatever counts.
        refuted: Digests of the evaluations that were refuted.
    """
    found = [f"refuted by a spot-check: task-eval {digest[:19]}" for digest in refuted]
    sound = list(pairs(facts))
    disputed = {about.digest: one for one, about in sound if _failed(one) and about.digest not in refuted}
    found += [
        f"disputed: task-eval {digest[:19]}, a spot-check that failed is {_by(one, role_for(gate))}"
        for digest, one in disputed.items()
    ]
    found += _unanswered(facts)
    known = {evaluation.digest: evaluation for evaluation in evaluations_of(facts)}
    matched = {one.digest for one, _ in sound}
    for one in facts.of_kind(SpotCheck.KIND):
        if isinstance(one.content, SpotCheck) and one.digest not in matched:
            evaluation = known.get(one.content.evaluation)
            why = fault(one.content, evaluation, facts.draws) if evaluation else "its evaluation is not here"
            found += [f"not counted: spot-check, {why}"] if why else []
    return list(dict.fromkeys(found))


def _refuted(gate: Gate, facts: Facts) -> dict[str, Evidence]:
    """Evaluations that count for nothing, by digest, each with the spot-check that counts most of those that refute it."""
    role, found = role_for(gate), {}
    sound = list(pairs(facts))
    vouched = {
        about.digest for one, about in sound if one.content.stated()["outcome"] == "pass" and one.signed_by(role)
    }
    for one, about in sound:
        is_vouched = about.digest in vouched or about.signed_by(role_for(gate, TaskEval.KIND)) is not None
        if _failed(one) and (one.signed_by(role) or (gate.spot_check is None and not is_vouched)):
            found[about.digest] = one
    return found


def _failed(one: Evidence) -> bool:
    return bool(one.content.stated()["outcome"] == "fail")


def _by(one: Evidence, role: Role) -> str:
    """Who says so."""
    signature = one.signed_by(role)
    if signature is not None:
        return f"signed by {signature.name}"
    return f"{why_not(one, role)}, attached by {one.actor or 'somebody unknown'}"


def _unanswered(facts: Facts) -> list[str]:
    """Who had items drawn and attached nothing, with the number of evaluations where it is more than one."""
    checks = (*facts.evidence, *(one for sibling in facts.siblings for one in sibling.spot_checks))
    answered = {one.content.seed for one in checks if isinstance(one.content, SpotCheck)}
    silent = [draw.actor for draw in facts.draws or () if draw.seed not in answered]
    names = [
        name if silent.count(name) == 1 else f"{name} ({silent.count(name)} times)" for name in sorted(set(silent))
    ]
    return [f"drawn, and nothing attached: {', '.join(names)}"] if names else []


def _without(sibling: Sibling, refuted: Collection[str]) -> Sibling:
    left = tuple(one for one in sibling.evidence if one.digest not in refuted)
    return replace(sibling, evidence=left)

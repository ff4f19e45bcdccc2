"""Which spot-checks are ones of their evaluation, what a failed one takes away, and whether the one that a gate asks for is there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from mlflow_quantgov.evidence.drawing import drawn, places_of
from mlflow_quantgov.evidence.predicates import Shape, SpotCheck, TaskEval
from mlflow_quantgov.evidence.predicates.spot_check_summary import hidden_at
from mlflow_quantgov.evidence.signing import Role, Signature
from mlflow_quantgov.evidence.tolerances import asks_alike, tolerance
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Draw, Evidence, Facts, Sibling
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import Gate, SpotCheckDemand
from mlflow_quantgov.policy.trust import may_be_author, used, wanted_role, why_not

ROLE: Role = "measurer"
"""Whose signature a spot-check needs where a gate asks for one and names no role for the kind."""
NUMBERS = "spot_check"
"""Where the numbers of a check say that nothing but a spot-check is missing."""
_RESTS_ON_TASKS = ("task-eval", "bit-width")


def fault(content: SpotCheck, evaluation: Evidence, draws: Sequence[Draw] | None) -> str | None:
    """Why a statement is no spot-check of an evaluation, whatever it says; None where it is one.

    Args:
        content: What was measured again.
        evaluation: The evaluation that it names.
        draws: What the gate has drawn; None where nobody can know.
    """
    recorded = evaluation.content
    if not isinstance(recorded, TaskEval) or content.evaluation != evaluation.digest:
        return "it is about another statement"
    if content.drawn_by == "gate" and draws is not None and not _draws_of(content, draws):
        return "this server has not drawn its items"
    if [one.task for one in content.tasks] != [one.task for one in recorded.tasks]:
        return "it names other tasks than the evaluation"
    if any(one.recorded != Shape.of(task) for one, task in zip(content.tasks, recorded.tasks, strict=True)):
        return "it says of a task what the evaluation does not"
    return _fault_of_items(content, recorded) or _fault_of_sides(content, recorded)


def failed(facts: Facts) -> dict[str, Evidence]:
    """Evaluations of which a spot-check failed, by digest, each with one that did; also of other versions that a check reads."""
    found: dict[str, Evidence] = {}
    for one, evaluation in _pairs(facts):
        if one.content.stated()["outcome"] == "fail":
            found[evaluation.digest] = one
    return found


def set_aside(facts: Facts) -> tuple[Facts, dict[str, Evidence]]:
    """Facts without the evaluations that a spot-check has refuted, and for each such evaluation the spot-check."""
    refuted = failed(facts)
    if not refuted:
        return facts, {}
    siblings = tuple(_without(one, refuted) for one in facts.siblings)
    left = tuple(one for one in facts.evidence if one.digest not in refuted)
    return replace(facts, evidence=left, siblings=siblings), refuted


def explain(found: CheckResult, refuted: dict[str, Evidence]) -> CheckResult:
    """A result that misses an evaluation, with the spot-check that took it away."""
    if not found.refuses or not refuted or found.check not in _RESTS_ON_TASKS:
        return found
    said = "; ".join(
        f"the evaluation {digest[:19]} does not count, a spot-check of it failed ({one.content.stated()['reason']})"
        for digest, one in refuted.items()
    )
    evidence = (*found.evidence, *(one.digest for one in refuted.values()))
    return replace(found, reason=f"{found.reason} Refuted: {said}.", evidence=evidence)


def demanded(gate: Gate, facts: Facts, checks: Sequence[CheckResult], uri: str) -> tuple[CheckResult, ...]:
    """The checks, with those that rest on an evaluation missing where the policy wants a spot-check that is not there."""
    demand = gate.spot_check
    if demand is None or facts.role == "parent":
        return tuple(checks)
    return tuple(
        _demanded(one, demand, gate, facts, uri) if one.check in _RESTS_ON_TASKS and not one.refuses else one
        for one in checks
    )


def role_for(gate: Gate) -> Role:
    """The role whose signature a demanded spot-check needs."""
    return wanted_role(gate, SpotCheck.KIND) or ROLE


def labels(facts: Facts, refuted: Collection[str]) -> list[str]:
    """What decides nothing and must be seen: evaluations that were refuted, spot-checks that are none, draws without an answer.

    Args:
        facts: What is known, refuted evaluations included.
        refuted: Digests of these.
    """
    known = {evaluation.digest: evaluation for evaluation in _evaluations(facts)}
    found = [f"refuted by a spot-check: task-eval {digest[:19]}" for digest in refuted]
    answered = {one.content.seed for one in facts.evidence if isinstance(one.content, SpotCheck)}
    silent = sorted({draw.actor for draw in facts.draws or () if draw.seed not in answered})
    found += [f"drawn, and nothing attached: {', '.join(silent)}"] if silent else []
    for one in facts.of_kind(SpotCheck.KIND):
        if isinstance(one.content, SpotCheck):
            evaluation = known.get(one.content.evaluation)
            why = fault(one.content, evaluation, facts.draws) if evaluation else "its evaluation is not here"
            found += [f"not counted: spot-check, {why}"] if why else []
    return list(dict.fromkeys(found))


def _demanded(check: CheckResult, demand: SpotCheckDemand, gate: Gate, facts: Facts, uri: str) -> CheckResult:
    kept = list(check.evidence)
    for evaluation in used(facts, [check]):
        if evaluation.kind != TaskEval.KIND or facts.model is None or evaluation.subject != facts.model.weights:
            continue
        vouching, why = _vouching(demand, gate, facts, evaluation)
        if vouching is None:
            reason = f"{check.reason} Not measured: the policy wants a spot-check of the evaluation {evaluation.digest[:19]} by another key; {why}."
            more = f" --statement {evaluation.digest}"
            fix = f"have somebody else run: quantgov spot-check {uri} --items {demand.items}{more} --key NAME.key.pem"
            numbers = check.numbers | {NUMBERS: {"evaluation": evaluation.digest, "lacks": why}}
            return replace(check, outcome="missing", reason=reason, fix=fix, numbers=numbers)
        kept.append(vouching.digest)
    return replace(check, evidence=tuple(dict.fromkeys(kept)))


def _vouching(demand: SpotCheckDemand, gate: Gate, facts: Facts, evaluation: Evidence) -> tuple[Evidence | None, str]:
    """A spot-check that is as the policy wants it, or why the newest is not."""
    why = "there is none"
    for one, about in _pairs(facts):
        if about.digest == evaluation.digest:
            problem = _shortfall(one, demand, gate, facts, evaluation)
            if problem is None:
                return one, ""
            why = problem
    return None, why


def _shortfall(one: Evidence, demand: SpotCheckDemand, gate: Gate, facts: Facts, evaluation: Evidence) -> str | None:
    content = one.content
    assert isinstance(content, SpotCheck)
    stated = content.stated()
    if stated["outcome"] != "pass":
        return f"one is {stated['outcome']}: {stated['reason']}"
    if content.drawn_by != "gate":
        return "one was drawn by whoever checked, and not by this server"
    unheard = [_unheard(signature, content, facts, evaluation) for signature in _signatures(one, role_for(gate))]
    if None not in unheard:
        return unheard[0] if unheard else f"one is {why_not(one, role_for(gate))}"
    everything = len(content.items) >= content.of
    if len(content.items) < demand.items and not everything:
        return f"one looks at {len(content.items)} items, and the policy wants {demand.items}"
    hidden = hidden_at(content, demand.share)
    if hidden > demand.risk:
        return (
            f"one leaves a forgery of {demand.share:.0%} of the items hidden with a probability of {hidden:.2g}, and the policy "
            f"wants {demand.risk:g} at most: more items show more"
        )
    return None


def _signatures(one: Evidence, role: Role) -> list[Signature]:
    return [signature for signature in one.signatures if signature.is_valid and role in signature.roles]


def _unheard(signature: Signature, content: SpotCheck, facts: Facts, evaluation: Evidence) -> str | None:
    """Why somebody does not vouch for a spot-check by signing it; None where they do."""
    if may_be_author(evaluation, signature.name):
        return f"one is signed by {signature.name}, who has measured or attached the evaluation"
    drawn_for = {fold(draw.actor) for draw in _draws_of(content, facts.draws or ())}
    # Else somebody draws under many names, and signs what they like.
    if facts.draws is not None and fold(signature.name) not in drawn_for:
        return f"one is signed by {signature.name}, and its items were drawn for somebody else"
    return None


def _draws_of(content: SpotCheck, draws: Sequence[Draw]) -> list[Draw]:
    """The draws that gave a spot-check its items."""
    return [one for one in draws if (one.statement, one.seed) == (content.evaluation, content.seed)]


def _pairs(facts: Facts) -> Iterable[tuple[Evidence, Evidence]]:
    """Every sound spot-check with its evaluation, newest last."""
    known = {one.digest: one for one in _evaluations(facts)}
    checks = sorted(
        (*facts.evidence, *(one for sibling in facts.siblings for one in sibling.spot_checks)), key=lambda one: one.rank
    )
    for one in checks:
        if not isinstance(one.content, SpotCheck):
            continue
        evaluation = known.get(one.content.evaluation)
        is_about = evaluation is not None and one.subject == evaluation.subject
        if evaluation is not None and is_about and fault(one.content, evaluation, facts.draws) is None:
            yield one, evaluation


def _fault_of_items(content: SpotCheck, recorded: TaskEval) -> str | None:
    """Items that were not drawn, or are not those of the evaluation."""
    if content.problem is not None:
        return None
    there = {one.task: (one.again or one.recorded).items for one in content.tasks}
    places = places_of([(task.task, len(task.items)) for task in recorded.tasks])
    wanted = [one for one in drawn(content.seed, places, content.asked_for) if one[1] < there[one[0]]]
    if [(one.task, one.number) for one in content.items] != wanted:
        return "its items are not those that were drawn"
    tasks = {task.task: task for task in recorded.tasks}
    if any(one.recorded != tasks[one.task].items[one.number] for one in content.items):
        return "it says of an item what the evaluation does not"
    return None


def _fault_of_sides(content: SpotCheck, recorded: TaskEval) -> str | None:
    """Other models, or more tolerance than their runtimes are given."""
    if content.problem is not None:
        return None
    for then, now, given in (
        (recorded.parent, content.parent, content.parent_tolerance),
        (recorded.quantized, content.quantized, content.quantized_tolerance),
    ):
        assert now is not None, "the predicate holds both sides with its items"
        if then.weights != now.weights:
            return "it measured other weights"
        if given != tolerance(recorded, then, now, content.provenance, content.machine):
            return "it allows itself another tolerance than its runtime's"
    return None if content.asked_alike == asks_alike(recorded, content.provenance) else "its libraries are others"


def _evaluations(facts: Facts) -> list[Evidence]:
    others = (one for sibling in facts.siblings for one in sibling.evidence)
    return [one for one in (*facts.evidence, *others) if one.kind == TaskEval.KIND]


def _without(sibling: Sibling, refuted: dict[str, Evidence]) -> Sibling:
    left = tuple(one for one in sibling.evidence if one.digest not in refuted)
    return replace(sibling, evidence=left)

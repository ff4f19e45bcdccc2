"""Whether a statement is a spot-check of the evaluation that it names: of drawn items, of its records, within its runtime's tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mlflow_quantgov.evidence.drawing import drawn, places_of
from mlflow_quantgov.evidence.predicates import Shape, SpotCheck, TaskEval, Tolerance
from mlflow_quantgov.evidence.tolerances import asks_alike, tolerance
from mlflow_quantgov.policy.facts import Draw, Evidence, Facts


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
    if content.drawn_by == "gate" and draws is not None and not draws_of(content, draws):
        return "this server has not drawn its items"
    if [one.task for one in content.tasks] != [one.task for one in recorded.tasks]:
        return "it names other tasks than the evaluation"
    if any(one.recorded != Shape.of(task) for one, task in zip(content.tasks, recorded.tasks, strict=True)):
        return "it says of a task what the evaluation does not"
    return _fault_of_items(content, recorded) or _fault_of_sides(content, recorded)


def pairs(facts: Facts) -> Iterator[tuple[Evidence, Evidence]]:
    """Every spot-check that is one, with its evaluation, also of other versions that a check reads; what counts most comes last."""
    known = {one.digest: one for one in evaluations_of(facts)}
    others = (one for sibling in facts.siblings for one in sibling.spot_checks)
    for one in sorted((*facts.evidence, *others), key=lambda one: one.rank):
        if not isinstance(one.content, SpotCheck):
            continue
        about = known.get(one.content.evaluation)
        if about is not None and one.subject == about.subject and fault(one.content, about, facts.draws) is None:
            yield one, about


def evaluations_of(facts: Facts) -> list[Evidence]:
    """Task evaluations of this version and of others that a check reads."""
    others = (one for sibling in facts.siblings for one in sibling.evidence)
    return [one for one in (*facts.evidence, *others) if one.kind == TaskEval.KIND]


def draws_of(content: SpotCheck, draws: Sequence[Draw]) -> list[Draw]:
    """The draws that gave a spot-check its items."""
    return [one for one in draws if (one.statement, one.seed) == (content.evaluation, content.seed)]


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
        if not _is_alike(given, tolerance(recorded, then, now, content.provenance, content.machine)):
            return "it allows itself another tolerance than its runtime's"
    return None if content.asked_alike == asks_alike(recorded, content.provenance) else "its libraries are others"


def _is_alike(given: Tolerance | None, own: Tolerance) -> bool:
    """Whether two tolerances allow the same; another release says it in other words, another SciPy rounds otherwise."""
    if given is None or given.exact != own.exact or (given.share is None) != (own.share is None):
        return False
    return math.isclose(given.logprob, own.logprob) and math.isclose(given.share or 0.0, own.share or 0.0, rel_tol=1e-6)

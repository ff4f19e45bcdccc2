"""What a spot-check shows, computed from its records alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from mlflow_quantgov.evidence.statistics.samples import chance_hidden, most_expected

if TYPE_CHECKING:
    from mlflow_quantgov.evidence.predicates.spot_check import CheckedItem, SpotCheck, Tolerance
    from mlflow_quantgov.evidence.predicates.task_eval import Answer

SHARES = (0.05, 0.10, 0.25, 0.50)
"""Forgeries that are spoken of, as shares of all items."""
LEAST_SEEN = 0.05
"""A forgery of half of the items that would stay hidden more often than this: too little was looked at for any verdict."""
MOST_NAMED = 10
"""Items that differ and are named in the summary."""
Verdict = Literal["agrees", "differs", "may-differ", "unclear"]
"""`may-differ`: a score that differs where some may; `unclear`: it could not be asked in the same way."""


def summarize(content: SpotCheck) -> dict[str, Any]:
    """See `SpotCheck.recompute`."""
    judged = [(one, *judge(one, content)) for one in content.items]
    counts = {name: sum(verdict == name for _, verdict, _ in judged) for name in ("differs", "may-differ", "unclear")}
    tolerated = most_expected(len(judged), _share(content))
    # What could not be compared may be forged: it shows nothing, like what is tolerated.
    unseen = tolerated + counts["unclear"]
    hidden = {f"{share:.0%}": chance_hidden(content.of, len(judged), share, unseen) for share in SHARES}
    outcome, reason = _outcome(content, counts, tolerated, hidden)
    return {
        "outcome": outcome,
        "reason": reason,
        "items": len(judged),
        "of": content.of,
        "differ": counts["differs"] + counts["may-differ"],
        "unclear": counts["unclear"],
        "tolerated": tolerated,
        "hidden": hidden,
        "tasks": _by_task(content, judged, tolerated),
        "differing": [
            f"{one.task}/{one.recorded.id[:60]}: {why}" for one, verdict, why in judged if verdict != "agrees"
        ][:MOST_NAMED],
    }


def hidden_at(content: SpotCheck, share: float) -> float:
    """How likely a forgery of that share of all items would have stayed hidden, of a spot-check in which nothing is unclear."""
    return _hidden(content, len(content.items), share)


def items_for(content: SpotCheck, share: float, risk: float) -> int | None:
    """How many items (counted in steps of a tenth) hide a forgery of a share with at most a probability, by the same tolerances.

    None where not even all of them do.
    """
    items = len(content.items)
    while _hidden(content, items, share) > risk:
        if items >= content.of:
            return None
        items = min(content.of, items + max(5, items // 10))
    return items


def judge(item: CheckedItem, content: SpotCheck) -> tuple[Verdict, str]:
    """One item, and in words what differs."""
    recorded, again = item.recorded, item.again
    shape = next((one for one in content.tasks if one.task == item.task), None)
    if shape is None or shape.again is None:
        return "unclear", "the task was not run"
    if shape.again != shape.recorded:
        return "differs", "the task's files give another task"
    for name in ("id", "group", "choices"):
        if getattr(recorded, name) != getattr(again, name):
            return "differs", f"its {name} is {getattr(again, name)!r} in the task's files"[:200]
    if recorded.prompt_sha256 != again.prompt_sha256:
        if content.asked_alike:
            return "differs", "the task's files ask something else"
        return "unclear", "another version of lm-eval asks something else"
    found: tuple[Verdict, str] = ("agrees", "")
    for name, was, now, tolerance in (
        ("parent", recorded.parent, again.parent, content.parent_tolerance),
        ("quantized", recorded.quantized, again.quantized, content.quantized_tolerance),
    ):
        verdict, why = _compare(was, now, tolerance)
        if _BADNESS[verdict] > _BADNESS[found[0]]:
            found = verdict, f"{name} {why}"
    return found


def is_equal(recorded: Answer, again: Answer, logprob: float) -> bool:
    """Whether two answers are the same one, up to the last digits of log-probabilities."""
    return (
        math.isclose(recorded.score, again.score, rel_tol=1e-6, abs_tol=1e-9)
        and recorded.output == again.output
        and _near(recorded.logprobs, again.logprobs, logprob)
    )


_BADNESS: Mapping[Verdict, int] = {"agrees": 0, "may-differ": 1, "unclear": 2, "differs": 3}


def _compare(recorded: Answer, again: Answer, tolerance: Tolerance | None) -> tuple[Verdict, str]:
    assert tolerance is not None, "the predicate holds one with every item"
    words = f"scored {recorded.score:g}, now {again.score:g}"
    if tolerance.exact:
        if is_equal(recorded, again, tolerance.logprob):
            return "agrees", ""
        return "differs", words if recorded.score != again.score else "gave another answer"
    if math.isclose(recorded.score, again.score, rel_tol=1e-6, abs_tol=1e-9):
        return "agrees", ""
    return "unclear" if tolerance.share is None else "may-differ", words


def _near(recorded: tuple[float, ...] | None, again: tuple[float, ...] | None, tolerance: float) -> bool:
    if recorded is None or again is None or len(recorded) != len(again):
        return recorded == again
    return all(
        math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
        for one, other in zip(recorded, again, strict=True)
    )


def _hidden(content: SpotCheck, items: int, share: float) -> float:
    return chance_hidden(content.of, items, share, most_expected(items, _share(content)))


def _share(content: SpotCheck) -> float:
    """Probability with which an honest item differs on either side."""
    held = 1.0
    for tolerance in (content.parent_tolerance, content.quantized_tolerance):
        held *= 1.0 - ((tolerance.share or 0.0) if tolerance is not None and not tolerance.exact else 0.0)
    return 1.0 - held


def _outcome(
    content: SpotCheck, counts: Mapping[str, int], tolerated: int, hidden: Mapping[str, float]
) -> tuple[str, str]:
    items = len(content.items)
    other = [one.task for one in content.tasks if one.again is not None and one.again != one.recorded]
    if other:
        return "fail", f"the files of {', '.join(other[:5])} give another task than was recorded"[:500]
    if content.problem is not None:
        return "inconclusive", content.problem
    if counts["differs"]:
        return "fail", f"{counts['differs']} of {items} items are not what was recorded"
    if counts["may-differ"] > tolerated:
        return "fail", f"{counts['may-differ']} of {items} items score otherwise, at most {tolerated} may"
    if counts["unclear"]:
        return "inconclusive", f"{counts['unclear']} of {items} items could not be compared"
    if hidden["50%"] > LEAST_SEEN:
        return (
            "inconclusive",
            f"{items} items are too few: a forgery of half of all would stay hidden {hidden['50%']:.0%}",
        )
    if counts["may-differ"]:
        return "pass", f"{counts['may-differ']} of {items} items score otherwise, and {tolerated} may"
    return "pass", f"all {items} items agree"


def _by_task(content: SpotCheck, judged: list[tuple[CheckedItem, Verdict, str]], tolerated: int) -> dict[str, Any]:
    """Items of every task, and how likely a forgery within that task alone would have stayed hidden."""
    found = {}
    for task in content.tasks:
        mine = [verdict for item, verdict, _ in judged if item.task == task.task]
        unseen = tolerated + mine.count("unclear")
        found[task.task] = {
            "items": len(mine),
            "of": task.recorded.items,
            "differ": sum(verdict in {"differs", "may-differ"} for verdict in mine),
            "hidden": {
                f"{share:.0%}": chance_hidden(task.recorded.items, len(mine), share, unseen) for share in SHARES
            },
        }
    return found

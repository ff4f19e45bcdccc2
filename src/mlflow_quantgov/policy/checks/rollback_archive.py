"""Can it be taken back in one operation?"""

from __future__ import annotations

from datetime import timedelta

from mlflow_quantgov.evidence.predicates import Archive, Drill, Predicate
from mlflow_quantgov.lineage import ModelFacts
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult

NAME = "rollback-archive"


def run(question: Question) -> CheckResult:
    """The parent is archived, came back in a drill lately, is a version here, and serves behind a switch."""
    facts = question.facts
    own = facts.model if facts.role == "parent" else None
    parent = own or (facts.lineage.parent if facts.lineage else None)
    if parent is None:
        return result(NAME, "missing", "Not measured: the parent's files cannot be read.", "quantgov doctor")
    archives = [one for one in facts.of_kind("archive", parent.weights) if _is_whole(one.content, parent)]
    drills = [one for one in facts.of_kind("drill", parent.weights) if _is_whole(one.content, parent)]
    if not archives:
        return result(
            NAME,
            "missing",
            "Not measured: the full-precision weights are not archived.",
            f"quantgov archive {question.uri}",
        )
    stores = {one.content.store for one in archives if isinstance(one.content, Archive)}
    drills = [one for one in drills if isinstance(one.content, Drill) and one.content.store in stores]
    if not drills:
        return result(
            NAME,
            "missing",
            "Not measured: no restore drill has shown that they come back.",
            f"quantgov drill {question.uri}",
        )
    newest = drills[-1]
    content = newest.content
    assert isinstance(content, Drill)
    if content.recompute()["outcome"] != "pass":
        problem = content.problems[0] if content.problems else "the restored model did not answer"
        return result(
            NAME,
            "fail",
            f"The last restore drill failed: {problem}",
            f"quantgov archive {question.uri}; quantgov drill {question.uri}",
            (newest,),
        )
    age = facts.now - content.provenance.measured_at
    if age > timedelta(days=question.gate.drill_days):
        return result(
            NAME, "missing", f"The last drill is {age.days} days old.", f"quantgov drill {question.uri}", (newest,)
        )
    if own is None and (facts.lineage is None or facts.lineage.parent_version is None):
        fix = f"quantgov log-parent PATH --name parent --register {facts.name}"
        return result(
            NAME,
            "missing",
            f"The parent is no version of {facts.name}, so no alias can move back to it.",
            fix,
            (newest,),
        )
    if facts.target is None or facts.target.flag is None:
        return result(
            NAME, "missing", "No switch is declared behind which it serves.", "declare `flag:` in the target", (newest,)
        )
    switch = facts.target.flag
    return result(
        NAME, "pass", f"Archived, restored {age.days} days ago, behind the switch {switch}.", "", (archives[-1], newest)
    )


def _is_whole(content: Predicate, parent: ModelFacts) -> bool:
    """Whether it is about every file of the parent, and not about its weights alone."""
    return isinstance(content, Archive | Drill) and content.manifest_digest == parent.manifest

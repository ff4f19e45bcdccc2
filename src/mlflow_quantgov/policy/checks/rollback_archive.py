"""Can it be taken back in one operation?"""

from __future__ import annotations

from datetime import timedelta

from mlflow_quantgov.evidence.predicates import Drill
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult

NAME = "rollback-archive"


def run(question: Question) -> CheckResult:
    """The parent is archived, came back in a drill lately, is a version here, and serves behind a switch."""
    facts = question.facts
    own = facts.model.weights if facts.role == "parent" and facts.model else None
    parent = own or (facts.lineage.parent.weights if facts.lineage and facts.lineage.parent else None)
    if parent is None:
        return result(NAME, "missing", "Not measured: the parent's files cannot be read.", "quantgov doctor")
    archives, drills = facts.of_kind("archive", parent), facts.of_kind("drill", parent)
    if not archives:
        return result(
            NAME,
            "missing",
            "Not measured: the full-precision weights are not archived.",
            f"quantgov archive {question.uri}",
        )
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
            NAME, "fail", f"The last restore drill failed: {problem}", f"quantgov archive {question.uri}", (newest,)
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

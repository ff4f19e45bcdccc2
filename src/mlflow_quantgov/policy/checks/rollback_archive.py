"""Can it be taken back in one operation?"""

from __future__ import annotations

from datetime import timedelta

from mlflow_quantgov.artifact.manifest import FileEntry, Manifest
from mlflow_quantgov.evidence.predicates import Archive, Drill, Predicate
from mlflow_quantgov.lineage import ModelFacts
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence

NAME = "rollback-archive"
KINDS = ("archive", "drill")


def run(question: Question) -> CheckResult:
    """The parent is archived, came back in a drill lately, is a version here, and serves behind a switch."""
    facts = question.facts
    parent = facts.original
    if parent is None:
        return result(NAME, "missing", "Not measured: the parent's files cannot be read.", "quantgov doctor")
    kept = facts.of_kind("archive", parent.weights)
    archives = [one for one in kept if _is_whole(one.content, parent)]
    if not archives:
        reason = "Not measured: the full-precision weights are not archived."
        if kept:
            reason = "Not measured: the parent's files are not archived whole, and weights alone answer nothing."
        return result(NAME, "missing", reason, f"quantgov archive {question.uri}")
    stores = {one.content.store for one in archives if isinstance(one.content, Archive)}
    tried = [one.content for one in facts.of_kind("drill", parent.weights) if isinstance(one.content, Drill)]
    drills = [
        one
        for one in facts.of_kind("drill", parent.weights)
        if isinstance(one.content, Drill) and one.content.store in stores and _is_whole(one.content, parent)
    ]
    if not drills:
        reason = "Not measured: no restore drill has shown that they come back."
        if tried and tried[-1].store not in stores:
            reason = f"{reason[:-1]} from {' or '.join(sorted(stores))}; the last one was of {tried[-1].store}."
        return result(NAME, "missing", reason, f"quantgov drill {question.uri}")
    problem = _drill_problem(question, drills[-1], archives[-1]) or _switch_problem(
        question, drills[-1], is_parent=facts.role == "parent"
    )
    if problem is not None:
        return problem
    assert facts.target is not None
    age = facts.now - drills[-1].content.provenance.measured_at
    reason = f"Archived, restored {age.days} days ago, behind the switch {facts.target.flag}."
    return result(NAME, "pass", reason, "", (archives[-1], drills[-1]))


def _drill_problem(question: Question, newest: Evidence, archived: Evidence) -> CheckResult | None:
    """The newest drill failed, brought back less than was archived, or is too old to say anything."""
    content, files = newest.content, archived.content
    assert isinstance(content, Drill) and isinstance(files, Archive)
    if content.recompute()["outcome"] != "pass":
        unsaid = "its answer was not compared" if content.answered else "the restored model did not answer"
        problem = content.problems[0] if content.problems else unsaid
        fix = f"quantgov archive {question.uri}; quantgov drill {question.uri}"
        return result(NAME, "fail", f"The last restore drill failed: {problem}", fix, (newest,))
    if content.verified_files != len(files.files):
        reason = f"The last drill verified {content.verified_files} of the {len(files.files)} files that were archived."
        return result(NAME, "fail", reason, f"quantgov drill {question.uri}", (newest, archived))
    age = question.facts.now - content.provenance.measured_at
    if age > timedelta(days=question.gate.drill_days):
        reason = f"The last drill is {age.days} days old."
        return result(NAME, "missing", reason, f"quantgov drill {question.uri}", (newest,))
    return None


def _switch_problem(question: Question, newest: Evidence, *, is_parent: bool) -> CheckResult | None:
    """There is no version to go back to, or no switch behind which it serves."""
    facts = question.facts
    if not is_parent and (facts.lineage is None or facts.lineage.parent_version is None):
        reason = f"The parent is no version of {facts.name}, so no alias can move back to it."
        fix = f"quantgov log-parent PATH --name parent --register {facts.name}"
        return result(NAME, "missing", reason, fix, (newest,))
    if facts.target is None or facts.target.flag is None:
        reason = "No switch is declared behind which it serves."
        return result(NAME, "missing", reason, "declare `flag:` in the target", (newest,))
    return None


def _is_whole(content: Predicate, parent: ModelFacts) -> bool:
    """Whether it is about every file of the parent, and not about its weights alone.

    The files that an archive lists have to give the digest that it states: it is that of the whole parent.
    """
    if not isinstance(content, Archive | Drill) or content.manifest_digest != parent.manifest:
        return False
    return isinstance(content, Drill) or listed_digest(content) == parent.manifest


def listed_digest(content: Archive) -> str:
    """The manifest digest of the files that an archive lists."""
    return Manifest(tuple(FileEntry(one.path, one.size, one.sha256) for one in content.files), "").digest

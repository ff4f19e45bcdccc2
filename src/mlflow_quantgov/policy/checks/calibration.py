"""Was the quantizer shown data like production's?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_quantgov.evidence.calibration_words import reason
from mlflow_quantgov.evidence.likeness import ACTIVATIONS, TEXT_TESTS, overall
from mlflow_quantgov.evidence.predicates import Calibration, Reproduction, TaskEval
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.checks.task_eval import newest_tasks
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence, Facts, reproductions, was_reproduced

NAME = "calibration"
KINDS = ("calibration",)
_AGAIN = "quantgov quantize PARENT OUTPUT --recipe recipe.yaml --calibration calib.jsonl"
"""Other data make other weights: what was calibrated on the wrong ones is quantized again."""


def run(question: Question) -> CheckResult:
    """Not applicable where inspection shows that the method needs no data; a claim does not."""
    facts = question.facts
    noted = facts.model.quantization.calibration_data if facts.model else ()
    if facts.model is not None and facts.model.quantization.calibration_required is False and not noted:
        return result(NAME, "not-applicable", "This method needs no calibration data, by inspection.")
    open_question = facts.model is not None and facts.model.quantization.calibration_required is None
    if open_question and not noted and (run_again := _made_without_data(facts)) is not None:
        without = "Run again from its recipe, which reads no calibration data, it gave the same bytes."
        return result(NAME, "not-applicable", without, "", (run_again,))
    fix = f"quantgov calibration {question.uri} --calibration calib.jsonl --production traffic.jsonl --tasks tasks/"
    if facts.generic_set:
        named = f"The model's own metadata name what it was calibrated on, {', '.join(noted)}: the generic set {facts.generic_set}."
        return result(NAME, "fail", named, _AGAIN, generic_set=facts.generic_set)
    found = [one for one in facts.of_kind("calibration") if isinstance(one.content, Calibration)]
    if not found:
        if open_question and not noted:
            fix = f"{fix}; or, where a recipe without data made it: quantgov reproduce {question.uri}"
        return result(NAME, "missing", "Not measured: no calibration data is recorded.", fix)
    newest = found[-1]
    content = newest.content
    assert isinstance(content, Calibration)
    summary = content.recompute()
    outcome = summary["outcome"]
    if outcome == "fail":
        return result(NAME, "fail", reason(content), f"{_AGAIN}; {fix}", (newest,), **summary)
    if content.production is None:
        return result(NAME, "missing", "Not measured: no production sample to compare with.", fix, (newest,))
    pinned = question.yardsticks.production
    if pinned and content.production.digest not in pinned:
        return result(NAME, "fail", "Compared with another production sample than the policy pins.", fix, (newest,))
    if facts.recipe is not None and facts.recipe.calibration not in {None, content.data.digest}:
        other = (
            f"The recipe with which it was logged names the calibration file {str(facts.recipe.calibration)[:19]}, and what "
            f"was compared with production is another, {content.data.digest[:19]}."
        )
        return result(NAME, "fail", other, fix, (newest,), **summary)
    lacking = _lacking(question, content, summary["tests"])
    if lacking and outcome == "pass":
        return result(NAME, "missing", f"Not measured: {lacking}.", fix, (newest,), **summary)
    return result(NAME, outcome, reason(content), "" if outcome == "pass" else fix, (newest,), **summary)


def _made_without_data(facts: Facts) -> Evidence | None:
    """A second run of a recipe that reads no data and gave these very bytes: then none can have been needed."""
    for one in reproductions(facts)[-1:]:
        if isinstance(one.content, Reproduction) and one.content.recipe.calibration is None and was_reproduced(facts):
            return one
    return None


def _lacking(question: Question, content: Calibration, tests: Sequence[Mapping[str, Any]]) -> str:
    """What a pass would need that nobody looked at; empty where all that the policy asks for is there."""
    if content.searched_tasks is None:
        return "whether the calibration documents hold evaluation items"
    if unsearched := _unsearched(question, content):
        return (
            "the calibration documents were searched for other evaluation items than those that this version was asked in "
            f"{', '.join(unsearched)}"
        )
    if question.gate.calibration.activations != "required":
        return ""
    if not content.layers or overall(tests, required=(*TEXT_TESTS, ACTIVATIONS)) != "pass":
        return "what the parent's layers see on calibration data and on production"
    parent = question.facts.lineage.parent if question.facts.lineage else None
    seen = content.observation
    if seen is None or parent is None or seen.parent != parent.weights:
        return "what the layers of this version's own parent see; another model ran"
    return ""


def _unsearched(question: Question, content: Calibration) -> list[str]:
    """Tasks on which this version's capabilities rest, and whose items nobody looked for among these very documents.

    Each statement names one folder; where tasks lie in several, each is searched by itself. Evaluations that were imported
    have digests of another kind, which no folder has.
    """
    searched = {
        digest
        for one in question.facts.of_kind("calibration")
        if isinstance(one.content, Calibration)
        and one.content.data.digest == content.data.digest
        and not one.content.leaked_documents
        for digest in (one.content.searched_tasks, *one.content.searched)
    }
    tasks, evidence = newest_tasks(question)
    own = {
        (task.task, task.task_digest)
        for one in evidence
        if isinstance(one.content, TaskEval) and not one.content.provenance.imported
        for task in one.content.tasks
    }
    wanted = question.gate.capabilities
    named = {choice.task for one in wanted.values() for choice in one.tasks}
    gating = (one for one in tasks.values() if one.capability in wanted or one.task in named)
    return [one.task for one in gating if (one.task, one.task_digest) in own and one.task_digest not in searched]

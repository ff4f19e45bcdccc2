"""Does it come from an allowed full-precision parent, and how far is that proved?"""

from __future__ import annotations

from mlflow_quantgov.errors import pasted
from mlflow_quantgov.lineage import Lineage
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import reproductions

NAME = "lineage"
KINDS = ("reproduction", "training")
ON_GRID = "on-k-bit-grid"


def run(question: Question) -> CheckResult:
    """A parent stands for itself, if it is allowed; a quantized version needs the level that the gate demands."""
    facts = question.facts
    if facts.role == "parent":
        return _parent(question)
    found, wanted = facts.lineage, question.gate.lineage_level
    if found is None or found.level == "none":
        return result(NAME, "missing", "No full-precision parent is named.", "log it with parent=models:/NAME/VERSION")
    if not found.reaches(wanted):
        return _too_low(question, found)
    allowed = question.yardsticks.parents
    if allowed and (found.parent is None or found.parent.weights not in allowed):
        return result(
            NAME,
            "fail",
            "Its parent is not among those that the policy allows.",
            "ask for the parent's digest in the policy",
        )
    if not allowed and found.parent is not None and ON_GRID in found.parent.quantization.warnings:
        return result(
            NAME,
            "fail",
            "Its parent's weights lie on a k-bit grid: the parent looks like a quantized model written back as floats.",
            "name the original, or pin this parent's digest in the policy (yardsticks: parents)",
        )
    seen = found.descent.resolution if found.descent else None
    limit = found.descent.limit if found.descent else None
    through = f" through the trained checkpoint {found.through.uri}" if found.through else ""
    reason = f"Parent {found.parent_uri}, proved up to {found.level}{through}."
    if limit and found.through:
        limit = limit.replace("the parent", "the checkpoint", 1)
    if limit:
        reason += f" {limit[0].upper()}{limit[1:]}."
    evidence = reproductions(facts)[-1:] if found.level == "reproduced" else ()
    return result(NAME, "pass", reason, "", evidence, level=found.level, resolution=seen)


def _too_low(question: Question, found: Lineage) -> CheckResult:
    """The level that the gate demands is not reached, and what would reach it."""
    wanted, facts = question.gate.lineage_level, question.facts
    said = f"Proved up to {found.level}, {wanted} is demanded:"
    if wanted == "reproduced" and found.level == "numeric":
        tried, fix = reproductions(facts), f"quantgov reproduce {question.uri}"
        fix += f" --checkpoint {pasted(found.through.uri)}" if found.through else ""
        if not tried:
            return result(NAME, "missing", f"{said} nobody has run its recipe again.", fix)
        summary = tried[-1].content.stated()
        problem = f"run again, the recipe gave {summary['different']} of {summary['parts']} parts otherwise."
        return result(NAME, "fail", f"{said} {problem}", fix, tried[-1:])
    problem = found.problems[-1] if found.problems else "More has not been shown."
    fix = "log it again with its real parent"
    named = facts.checkpoint
    if found.level == "structure" and named is not None and (fault := named.fault) is not None:
        problem = f"{problem} {fault[1]}"
        fix += ", or mend what is said of its checkpoint (docs/how-to/release-below-four-bit.md)"
    elif found.level == "structure" and named is None and wanted == "numeric":
        fix += f"; where it was trained in between: quantgov training {question.uri} --help"
    return result(NAME, "fail", f"{said} {problem}", fix)


def _parent(question: Question) -> CheckResult:
    model = question.facts.model
    allowed = question.yardsticks.parents
    if model is None:
        return result(NAME, "fail", "The parent's files cannot be read.", "quantgov doctor")
    if allowed and model.weights not in allowed:
        return result(
            NAME,
            "fail",
            "This full-precision model is not among those that the policy allows.",
            "ask for its digest in the policy",
        )
    if not allowed and ON_GRID in model.quantization.warnings:
        return result(
            NAME,
            "fail",
            "The weights lie on a k-bit grid: this looks like a quantized model written back as floats.",
            "pin its digest in the policy (yardsticks: parents) if it really is an original",
        )
    return result(NAME, "pass", "A full-precision original.", level="original")

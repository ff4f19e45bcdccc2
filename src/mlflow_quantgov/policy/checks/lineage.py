"""Does it come from an allowed full-precision parent, and how far is that proved?"""

from __future__ import annotations

from mlflow_quantgov.errors import pasted
from mlflow_quantgov.lineage import Lineage, ModelFacts
from mlflow_quantgov.policy.checks.interface import Question, other_weights, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import reproductions
from mlflow_quantgov.policy.schema import ParentPin

NAME = "lineage"
KINDS = ("reproduction", "training")
ON_GRID = "on-k-bit-grid"
_OTHER = "the weights of an allowed parent, and another configuration or tokenizer than the policy pins."
_BARE = " The policy pins its weights alone: its configuration and tokenizer were chosen by the author."


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
    beside = other_weights(found.parent)
    if beside is not None:
        return result(
            NAME, "fail", f"In its parent {found.parent_uri} {beside[0]}", f"{beside[1]}, and this one with it"
        )
    standing = question.yardsticks.standing_of(found.parent)
    if standing == "not-allowed":
        reason = "Its parent is not among those that the policy allows."
        return result(NAME, "fail", reason, f"ask for the parent in the policy{_pin(found.parent)}")
    if standing == "other-behaviour":
        name = pasted(facts.name)
        fix = f"quantgov log PATH --parent models:/NAME/VERSION --target TARGET --name NAME --register {name}, with the pinned parent"
        return result(NAME, "fail", f"Its parent {found.parent_uri} has {_OTHER}", fix)
    if standing == "nothing-pinned" and found.parent is not None and ON_GRID in found.parent.quantization.warnings:
        return result(
            NAME,
            "fail",
            "Its parent's weights lie on a k-bit grid: the parent looks like a quantized model written back as floats.",
            f"name the original, or pin this parent in the policy{_pin(found.parent)}",
        )
    seen = found.descent.resolution if found.descent else None
    limit = found.descent.limit if found.descent else None
    through = f" through the trained checkpoint {found.through.uri}" if found.through else ""
    reason = f"Parent {found.parent_uri}, proved up to {found.level}{through}."
    if limit and found.through:
        limit = limit.replace("the parent", "the checkpoint", 1)
    if limit:
        reason += f" {limit[0].upper()}{limit[1:]}."
    if standing == "weights-pinned":
        reason += _BARE
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
    if model is None:
        return result(NAME, "fail", "The parent's files cannot be read.", "quantgov doctor")
    standing = question.yardsticks.standing_of(model)
    if standing == "not-allowed":
        reason = "This full-precision model is not among those that the policy allows."
        return result(NAME, "fail", reason, f"ask for it in the policy{_pin(model)}")
    if standing == "other-behaviour":
        name = pasted(question.facts.name)
        fix = f"quantgov log-parent PATH --name parent --register {name}, with the original's own files"
        return result(NAME, "fail", f"It has {_OTHER}", fix)
    if standing == "nothing-pinned" and ON_GRID in model.quantization.warnings:
        return result(
            NAME,
            "fail",
            "The weights lie on a k-bit grid: this looks like a quantized model written back as floats.",
            f"pin it in the policy if it really is an original{_pin(model)}",
        )
    bare = _BARE if standing == "weights-pinned" else ""
    return result(NAME, "pass", f"A full-precision original.{bare}", level="original")


def _pin(parent: ModelFacts | None) -> str:
    """What to paste there; empty where nobody could read the parent."""
    return f"; yardsticks: parents: [{ParentPin.of(parent).line}]" if parent else ""

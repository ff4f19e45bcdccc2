"""Is the width justified: four bit or more, or training that the bytes bear out, a budget, and a wider version before it?"""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.artifact.formats.full_precision import ON_GRID
from mlflow_quantgov.errors import one_line
from mlflow_quantgov.policy.checks import narrow
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult, Outcome
from mlflow_quantgov.policy.facts import narrowest_bits
from mlflow_quantgov.policy.trust import signing

NAME = "bit-width"
KINDS = ("training", "task-eval")
_WORST: tuple[Outcome, ...] = ("fail", "missing", "inconclusive")


def run(question: Question) -> CheckResult:
    """The width is that of the narrowest quantized matrix, read from the tensors: a mixture is as bold as its boldest."""
    facts = question.facts
    if facts.model is None:
        problem = next(iter(facts.problems), "the files cannot be read.")
        return result(NAME, "missing", f"Not measured: {problem}", "quantgov inspect PATH")
    found = facts.model.quantization
    bits = narrowest_bits(found)
    parent = facts.lineage.parent if facts.lineage else None
    inherited = parent is not None and ON_GRID in parent.quantization.warnings  # Whether that is allowed, lineage says.
    if (found.bits is None or bits is None) and ON_GRID in found.warnings and not inherited:
        reason = "Not measured: its floats lie on a k-bit grid, as weights that were quantized and written back do."
        return result(NAME, "missing", reason, "log the quantized files themselves, in which the width can be read")
    if found.bits is None or bits is None:
        return result(NAME, "not-applicable", "Full precision.")
    numbers: dict[str, Any] = {
        "bits": found.bits,
        "bits_per_weight": round(found.bits_per_weight, 3),
        "narrowest_bits": bits,
    }
    least = question.gate.least_bits
    if bits >= least:
        return result(NAME, "pass", f"{found.bits:g} bit, at or above {least:g}.", **numbers)
    some = "" if bits == found.bits else f" in {sum(layer.bits < least for layer in found.layers)} matrices"
    conditions = narrow.conditions(question, bits)
    for one in conditions:
        numbers |= one.numbers
    evidence = {each.digest: each for one in conditions for each in one.evidence}.values()
    unmet = [one for one in conditions if one.outcome != "pass"]
    if not unmet:
        kept = " ".join(one.reason for one in conditions)
        return result(NAME, "pass", f"{bits:g} bit{some}, below {least:g}. {kept}", "", evidence, **numbers)
    numbers["unmet"] = [_shown(question, one) for one in unmet]
    worst = next(outcome for outcome in _WORST if any(one.outcome == outcome for one in unmet))
    reason = f"{bits:g} bit{some} is below {least:g}. {' '.join(one.reason for one in unmet)}"
    # The first that is unmet on the way is what to do next.
    return result(NAME, worst, reason, unmet[0].fix, evidence, **numbers)


def _shown(question: Question, one: narrow.Condition) -> dict[str, str]:
    """What is unmet, for whoever measures one thing after the other."""
    return {
        "condition": one.name,
        "outcome": one.outcome,
        "reason": one_line(one.reason),
        "fix": one_line(signing(question.gate, one.fix)),
    }

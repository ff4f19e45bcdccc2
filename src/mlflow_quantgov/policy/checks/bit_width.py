"""Is the width justified: four bit or more, or recorded quantization-aware training?"""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.evidence.predicates import Training
from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult

NAME = "bit-width"
KINDS = ("training",)


def run(question: Question) -> CheckResult:
    """The width is that of the narrowest quantized matrix, read from the tensors: a mixture is as bold as its boldest."""
    facts = question.facts
    if facts.model is None:
        return result(NAME, "missing", "Not measured: the files cannot be read.", "quantgov inspect PATH")
    found = facts.model.quantization
    if found.bits is None:
        return result(NAME, "not-applicable", "Full precision.")
    numbers: dict[str, Any] = {"bits": found.bits, "bits_per_weight": round(found.bits_per_weight, 3)}
    least = question.gate.least_bits
    narrowest = min((layer.bits for layer in found.layers), default=found.bits)
    numbers["narrowest_bits"] = narrowest
    if narrowest >= least:
        return result(NAME, "pass", f"{found.bits:g} bit, at or above {least:g}.", **numbers)
    some = "" if narrowest == found.bits else f" in {sum(layer.bits < least for layer in found.layers)} matrices"
    parent = facts.lineage.parent.weights if facts.lineage and facts.lineage.parent else None
    training = [
        one
        for one in facts.of_kind("training")
        if isinstance(one.content, Training) and one.content.checkpoint == parent
    ]
    if not training:
        return result(
            NAME,
            "missing",
            f"{narrowest:g} bit{some} is below {least:g}, and no quantization-aware training of its parent is recorded.",
            "quantize at 4 bit or more first, and measure; below that, train for it and attach a training statement",
            **numbers,
        )
    return result(NAME, "pass", f"{narrowest:g} bit{some} with recorded training.", "", training[-1:], **numbers)

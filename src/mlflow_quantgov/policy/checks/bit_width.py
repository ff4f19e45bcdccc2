"""Is the width justified: four bit or more, or recorded quantization-aware training?"""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult

NAME = "bit-width"


def run(question: Question) -> CheckResult:
    """The width is that of most quantized weights, read from the tensors."""
    facts = question.facts
    if facts.model is None:
        return result(NAME, "missing", "Not measured: the files cannot be read.", "quantgov inspect PATH")
    found = facts.model.quantization
    if found.bits is None:
        return result(NAME, "not-applicable", "Full precision.")
    numbers: dict[str, Any] = {"bits": found.bits, "bits_per_weight": round(found.bits_per_weight, 3)}
    least = question.gate.least_bits
    if found.bits >= least:
        return result(NAME, "pass", f"{found.bits:g} bit, at or above {least:g}.", **numbers)
    training = facts.of_kind("training")
    if not training:
        return result(
            NAME,
            "missing",
            f"{found.bits:g} bit is below {least:g}, and no quantization-aware training is recorded.",
            "quantize at 4 bit or more first, and measure; below that, train for it and attach a training statement",
            **numbers,
        )
    return result(NAME, "pass", f"{found.bits:g} bit with recorded training.", "", training[-1:], **numbers)

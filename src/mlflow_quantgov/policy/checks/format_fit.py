"""Is the container one that the target's runtime loads and runs well?"""

from __future__ import annotations

from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult

NAME = "format-fit"


def run(question: Question) -> CheckResult:
    """Needs nothing but the declared target and the container."""
    facts = question.facts
    if facts.target is None:
        return result(
            NAME, "missing", "No deployment target is declared.", "log it with target=NAME (see: quantgov targets)"
        )
    if facts.model is None:
        return result(NAME, "missing", "Not measured: the files cannot be read.", "quantgov inspect PATH")
    pinned = question.yardsticks.targets
    if pinned and facts.target.digest not in pinned:
        return result(NAME, "fail", "Its target is not among those that the policy pins.", "log it for a pinned target")
    container, formats = facts.model.quantization.format, facts.target.formats
    if container not in formats:
        return result(
            NAME,
            "fail",
            f"{container} does not run on {facts.target.name}: {facts.target.runtime} takes {', '.join(formats)}.",
            f"quantgov plan --target {facts.target.name}   (then quantize it again as {formats[0]}, and log that)",
            format=container,
        )
    return result(NAME, "pass", f"{facts.target.runtime} takes {container}.", format=container)

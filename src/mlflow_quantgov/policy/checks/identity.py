"""Are these the bytes that were logged, and is the evidence beside them unaltered?"""

from __future__ import annotations

from mlflow_quantgov.policy.checks.interface import Question, other_weights, result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.stores import objection

NAME = "identity"
STORE_FIX = "log the model into an experiment whose artifact location lies there"


def run(question: Question) -> CheckResult:
    """Fail on anything altered or unreadable."""
    facts = question.facts
    if facts.problems:
        more = f" ({len(facts.problems)} problems in all)" if len(facts.problems) > 1 else ""
        fix = (
            "quantgov doctor"
            if facts.model
            else "quantgov inspect PATH   (it says what mends them); then log the model again"
        )
        return result(NAME, "fail", f"{facts.problems[0]}{more}", fix, problems=list(facts.problems))
    if facts.model is None:
        return result(NAME, "fail", "The model's files cannot be read.", "quantgov inspect PATH")
    elsewhere = objection(question.stores, facts.files_at)
    if elsewhere is not None:
        return result(NAME, "fail", elsewhere, STORE_FIX)
    if facts.recorded_manifest is None:
        return result(
            NAME,
            "missing",
            "Not measured: no manifest was written when this version was logged, and it is a language model or cannot be told from one.",
            "log it with mlflow_quantgov.log_model",
        )
    if facts.recorded_manifest != facts.model.manifest:
        return result(NAME, "fail", "The files are not those that were logged.", "log the model again")
    beside = other_weights(facts.model)
    if beside is not None:
        return result(NAME, "fail", *beside)
    return result(NAME, "pass", "Every file is the one that was logged.", manifest=facts.model.manifest)

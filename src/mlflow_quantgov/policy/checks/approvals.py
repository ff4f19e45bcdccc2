"""Have enough people agreed?"""

from __future__ import annotations

from mlflow_quantgov.policy.checks.interface import Question, result
from mlflow_quantgov.policy.decision import CheckResult

NAME = "approvals"


def run(question: Question) -> CheckResult:
    """Not applicable where the policy asks for nobody; statements of approval are not taken in yet, so else missing."""
    wanted = question.gate.approvers
    if wanted == 0:
        return result(NAME, "not-applicable", "The policy asks for no approvals.")
    return result(
        NAME,
        "missing",
        f"{wanted} approvals are demanded and none is recorded; this version of mlflow-quantgov cannot record them.",
        "set `approvers: 0` in the policy until approvals are supported",
        wanted=wanted,
    )

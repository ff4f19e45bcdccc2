"""Exceptions: a check that refuses is waived where somebody with the role has signed that for this very version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlflow_quantgov.errors import one_line
from mlflow_quantgov.evidence.predicates import Waiver
from mlflow_quantgov.evidence.signing import Role, Signature
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence, Facts

ROLE: Role = "waiver"


def waive(checks: Sequence[CheckResult], facts: Facts) -> tuple[CheckResult, ...]:
    """Results, with those that refuse and are waived turned into `waived`; what was found stays in the reason."""
    return tuple(_waived(check, facts) if check.refuses else check for check in checks)


def signer_of(one: Evidence, facts: Facts) -> Signature | None:
    """Who takes the responsibility by a waiver, if it holds for this version now.

    A waiver is a standing permission and no observation, so its key must be valid still, not only when it was received.
    """
    content = one.content
    if not isinstance(content, Waiver) or facts.now >= content.until:
        return None
    if (content.model, content.version, content.created) != (facts.name, facts.version, facts.created):
        return None
    signature = one.signed_by(ROLE)
    if signature is None or (signature.until is not None and facts.now >= signature.until):
        return None
    return signature


def _waived(check: CheckResult, facts: Facts) -> CheckResult:
    for one in reversed(facts.of_kind(Waiver.KIND)):
        content, signature = one.content, signer_of(one, facts)
        if signature is None or not isinstance(content, Waiver) or content.check != check.check:
            continue
        until = content.until.isoformat()
        said = f"{check.reason} Waived by {signature.name} until {until[:10]}: {one_line(content.reason)}"
        waiver = {
            "by": signature.name,
            "key": signature.key,
            "until": until,
            "reason": content.reason,
            "was": check.outcome,
        }
        return replace(
            check, outcome="waived", reason=said, numbers=check.numbers | {"waiver": waiver},
            evidence=(*check.evidence, one.digest),
        )  # fmt: skip
    return check

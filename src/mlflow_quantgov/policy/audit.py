"""The five self-audit answers, in this order, in every report."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_quantgov.policy.decision import AuditAnswer, CheckResult

QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Was it evaluated on real tasks, not just perplexity?", ("task-eval",)),
    ("Was the calibration data representative of production?", ("calibration",)),
    ("Is the bit width justified by a quality budget?", ("bit-width", "task-eval")),
    (
        "Was kernel support confirmed, and speed measured on the real hardware?",
        # What a container that does not run there does otherwise, is no matter.
        ("format-fit", "kernel-support", "benchmark"),
    ),
    ("Can it be rolled back in one operation?", ("rollback-archive",)),
)
_GOOD = {"pass", "not-applicable"}


def answers(checks: Sequence[CheckResult]) -> tuple[AuditAnswer, ...]:
    """Yes only where every check behind a question passed or does not apply; a waived `no` stays a `no`."""
    by_name = {check.check: check for check in checks}
    return tuple(_answer(question, [by_name.get(name) for name in names]) for question, names in QUESTIONS)


def _answer(question: str, checks: Sequence[CheckResult | None]) -> AuditAnswer:
    if any(check is None for check in checks):
        return AuditAnswer(question, "no", "Not measured: this destination does not ask for it.")
    known = [check for check in checks if check is not None]
    bad = [check for check in known if check.outcome not in _GOOD]
    if not bad:
        return AuditAnswer(question, "yes", " ".join(check.reason for check in known))
    reason = bad[0].reason
    if any(check.outcome == "missing" for check in bad) and not any(check.outcome == "fail" for check in bad):
        missing = next(check for check in bad if check.outcome == "missing")
        reason = f"Not measured: {missing.reason.removeprefix('Not measured: ')}"
    return AuditAnswer(question, "no", reason, waived=all(check.outcome == "waived" for check in bad))

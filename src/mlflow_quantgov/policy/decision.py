"""The answer to one request: every outcome, its numbers and its remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mlflow_quantgov.errors import visible

if TYPE_CHECKING:
    from mlflow_quantgov.policy.facts import Facts

Outcome = Literal["pass", "fail", "inconclusive", "missing", "waived", "not-applicable"]
REFUSING: frozenset[str] = frozenset({"fail", "inconclusive", "missing"})


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check."""

    check: str
    outcome: Outcome
    reason: str
    """One sentence for people."""
    fix: str = ""
    """A command to paste; empty where nothing is to be done."""
    numbers: dict[str, Any] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    """Digests of the statements that it rests on."""

    @property
    def refuses(self) -> bool:
        """Whether this outcome alone refuses the request."""
        return self.outcome in REFUSING

    def to_dict(self) -> dict[str, Any]:
        """As the JSON contract spells it."""
        return {
            "check": self.check,
            "outcome": self.outcome,
            "reason": self.reason,
            "fix": self.fix,
            "numbers": self.numbers,
            "evidence": list(self.evidence),
        }


@dataclass(frozen=True)
class AuditAnswer:
    """One of the five self-audit answers."""

    question: str
    answer: Literal["yes", "no"]
    why: str
    waived: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As the JSON contract spells it."""
        return {"question": self.question, "answer": self.answer, "why": self.why, "waived": self.waived}


@dataclass(frozen=True)
class Decision:
    """Decision of one request."""

    allowed: bool
    destination: str
    model: str
    version: str
    policy_name: str
    policy_digest: str
    mode: Literal["enforce", "observe"]
    checks: tuple[CheckResult, ...]
    self_audit: tuple[AuditAnswer, ...]
    decision_id: str = ""
    what_if: bool = False
    labels: tuple[str, ...] = ()
    """Things to know that decide nothing: `chosen by author: tasks`, `self-reported: task-eval`."""
    summary: str = ""
    """Why, where no check ran: the destination is open, or nobody named it."""
    keys: str = ""
    """Digest of the keys that were trusted; empty where nobody was."""
    decided_at: str = ""
    """UTC: the time with which expiries were compared."""
    signatures: tuple[dict[str, Any], ...] = ()
    """Of the statements that it rests on: `statement`, `key`, `name`, `roles`, `standing`, `received_at`."""
    facts: Facts | None = field(default=None, compare=False, repr=False)
    """What it rests on; None for a decision that came from a server."""
    judged: dict[str, Any] = field(default_factory=dict)
    """What identifies the version that was judged: `created`, `source`, `location`, `manifest`, `parent`, `rolls_back_to`."""

    @property
    def waived(self) -> tuple[str, ...]:
        """Checks that would have refused, had nobody waived them."""
        return tuple(check.check for check in self.checks if check.outcome == "waived")

    @property
    def approvals(self) -> dict[str, Any]:
        """`wanted`, `approved_by` and `not_counted`, where the policy asks for approvals; else empty."""
        return next((one.numbers for one in self.checks if "approved_by" in one.numbers), {})

    @property
    def manifest(self) -> str | None:
        """Digest of the files that were judged."""
        return manifest_of(self.to_dict())

    @property
    def exit_code(self) -> int:
        """0 allowed, 1 a check failed, 3 only missing or inconclusive ones."""
        if self.allowed:
            return 0
        refusing = [check.outcome for check in self.checks if check.refuses]
        return 3 if refusing and "fail" not in refusing else 1

    def to_dict(self) -> dict[str, Any]:
        """As `quantgov check --json` prints it."""
        return {
            "decision": "allowed" if self.allowed else "refused",
            "destination": self.destination,
            "model": self.model,
            "version": self.version,
            "decision_id": self.decision_id,
            "policy": {
                "name": self.policy_name,
                "digest": self.policy_digest,
                "what_if": self.what_if,
                "mode": self.mode,
            },
            "checks": [check.to_dict() for check in self.checks],
            "self_audit": [answer.to_dict() for answer in self.self_audit],
            "waived": list(self.waived),
            "keys": {"digest": self.keys},
            "decided_at": self.decided_at,
            "signatures": list(self.signatures),
            "judged": self.judged,
            "labels": list(self.labels),
            "summary": self.summary,
        }

    def one_line(self, report: str = "") -> str:
        """The verdict for dialogs that show one line: verdict first, then reasons, then where to read more.

        Args:
            report: Path or URL under which the whole decision can be read.
        """
        if self.allowed:
            waived = f", with {' and '.join(self.waived)} waived" if self.waived else ""
            said = f"quantgov allowed {self.model} version {self.version} at {self.destination}{waived}."
            return " ".join(visible(said).split())
        failed = [check for check in self.checks if check.refuses]
        reasons = "; ".join(
            f"({number}) {check.check} {check.outcome}: {check.reason}" for number, check in enumerate(failed, start=1)
        )
        fixes = list(dict.fromkeys(check.fix for check in failed if check.fix))
        parts = [
            f"quantgov refused {self.model} version {self.version} at {self.destination}: {reasons or self.summary}",
            f"Fix: {fixes[0]}" if fixes else "",
            f"Report: {report}" if report else "",
        ]
        return " ".join(" ".join(visible(part).split()) for part in parts if part)


def manifest_of(body: dict[str, Any]) -> str | None:
    """Digest of the files that a recorded decision judged; None where it read none, or was no decision.

    Args:
        body: As `Decision.to_dict` spells it; one of before says it only in its identity check.
    """
    identity: dict[str, Any] = next(
        (one["numbers"] for one in body.get("checks", ()) if one["check"] == "identity"), {}
    )
    found = body.get("judged", {}).get("manifest") or identity.get("manifest")
    return str(found) if found else None

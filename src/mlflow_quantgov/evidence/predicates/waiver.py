"""An exception: one check, one version, a reason, an end."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, Field

from mlflow_quantgov.evidence.predicates.base import Predicate, ShortText

Waivable = Literal[
    "task-eval",
    "calibration",
    "bit-width",
    "kernel-support",
    "benchmark",
    "format-fit",
    "rollback-archive",
    "approvals",
]
"""Checks that may be waived: nobody can take the responsibility for bytes that are not those that were judged."""


class WaiverV1(Predicate):
    """Waived a check of every version with some weights; nothing is decided by it any more."""

    KIND: ClassVar[str] = "waiver"

    check: ShortText
    reason: ShortText
    until: AwareDatetime
    """UTC; after it the waiver counts for nothing."""
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """The check that is waived."""
        return {"check": self.check}


class Waiver(Predicate):
    """Somebody with the role takes the responsibility for one failed check of one version until a date."""

    KIND: ClassVar[str] = "waiver"
    VERSION: ClassVar[int] = 2

    model: ShortText
    version: ShortText
    created: int
    """When that version was created (MLflow's milliseconds since 1970): a number may be given away again."""
    check: Waivable
    reason: Annotated[ShortText, Field(pattern=r"\S")]
    until: AwareDatetime
    """UTC; from then on the waiver counts for nothing."""
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """The check that is waived, of which version, and until when."""
        until = self.until.isoformat()
        return {"check": self.check, "model": self.model, "version": self.version, "until": until}

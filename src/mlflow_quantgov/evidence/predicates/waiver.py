"""An exception: one check, one version, a reason, an end."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import AwareDatetime

from mlflow_quantgov.evidence.predicates.base import Predicate, ShortText


class Waiver(Predicate):
    """Somebody with the role takes the responsibility for one failed check until a date."""

    KIND: ClassVar[str] = "waiver"

    check: ShortText
    reason: ShortText
    until: AwareDatetime
    """UTC; after it the waiver counts for nothing."""
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """The check that is waived."""
        return {"check": self.check}

"""Agreement by name: somebody approves of one version at one destination, or takes that back."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AwareDatetime, Field

from mlflow_quantgov.evidence.predicates.base import Digest, Predicate, ShortText

Words = Annotated[ShortText, Field(pattern=r"\S")]


class Approval(Predicate):
    """Somebody agrees that one version may stand at one destination; the subject is the weights digest."""

    KIND: ClassVar[str] = "approval"

    model: Words
    version: ShortText
    created: int
    """When that version was created (MLflow's milliseconds since 1970): a number may be given away again."""
    manifest: Digest
    """Of all its files."""
    destination: Words
    """`@alias` or a stage."""
    policy: Digest
    """The policy that whoever approves has seen."""
    by: Words | None = None
    """Who approves, where it is not signed: the name under which that person signs in."""
    until: AwareDatetime | None = None
    """UTC; from then on the approval counts for nothing. None: as long as the policy lets it count."""
    reason: Words | None = None
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """What is approved, where, and until when."""
        until = self.until.isoformat() if self.until else None
        return {"model": self.model, "version": self.version, "destination": self.destination, "until": until}


class Withdrawal(Predicate):
    """Somebody takes back whatever they have approved of one version at one destination until now."""

    KIND: ClassVar[str] = "withdrawal"

    model: Words
    version: ShortText
    created: int
    """When that version was created (MLflow's milliseconds since 1970)."""
    destination: Words
    """`@alias` or a stage."""
    by: Words | None = None
    """Who withdraws, where it is not signed."""
    reason: Words | None = None
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """What is no longer approved, and where."""
        return {"model": self.model, "version": self.version, "destination": self.destination}

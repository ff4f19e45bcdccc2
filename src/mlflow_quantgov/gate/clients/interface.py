"""What a client may ask the gate, wherever it stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any

from mlflow_quantgov.policy.decision import Decision


class Gate(ABC):
    """What a client may ask the gate."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """Version, store and policy of the gate."""

    @abstractmethod
    def policy(self) -> dict[str, Any]:
        """`name`, `digest` and `text` of the policy in force."""

    @abstractmethod
    def keys(self) -> dict[str, Any]:
        """`digest` and `text` of the trusted keys."""

    @abstractmethod
    def check(self, name: str, version: str, destination: str) -> Decision:
        """The decision, before asking for it; nothing is recorded."""

    @abstractmethod
    def attach(self, name: str, version: str, statement: bytes) -> dict[str, Any]:
        """Have a statement taken in.

        Raises:
            EvidenceError: It was not taken in, and why.
        """

    @abstractmethod
    def draw(self, name: str, version: str, statement: str | None = None) -> dict[str, Any]:
        """What decides which items of a task evaluation are measured again: `statement` (digest), `content` (text), `seed`.

        Raises:
            UsageError: The version has no such evaluation.
        """

    @abstractmethod
    def pointers(self, model: str | None = None) -> list[dict[str, Any]]:
        """How every version at a protected alias or stage came there: see `gate.believing.Standing`."""

    @abstractmethod
    def standing(self, name: str, version: str, destination: str) -> dict[str, Any]:
        """How one version came to where it stands.

        Raises:
            UsageError: It does not stand there.
        """

    @abstractmethod
    def recheck(self, name: str, version: str, destination: str) -> dict[str, Any]:
        """`standing`, `decision` as it would be today, and `altered`: whether the files are not those of then.

        Raises:
            UsageError: It does not stand there.
        """

    @abstractmethod
    def decision(self, decision_id: str) -> Decision | None:
        """A decision of the ledger."""

    @abstractmethod
    def ledger(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Rows of the ledger, newest first."""

    @abstractmethod
    def verify(self, wanted: Collection[int] = ()) -> dict[str, Any]:
        """`ok`, `rows`, `first_bad`, `first_hash`, `last_hash` of the hash chain.

        Also `hashes` of the rows that are asked for, and `pointers` that stand where the ledger has not put them.
        """

    @abstractmethod
    def export(self) -> Iterator[dict[str, Any]]:
        """Every row of the ledger, whole, from the first."""

    @abstractmethod
    def record(self, decision_id: str) -> dict[str, Any]:
        """Everything that a decision needs to be made again: `body`, `policy`, `facts`, `statements`.

        Raises:
            UsageError: There is no such decision.
            TamperingError: What it rests on is gone.
        """

    @abstractmethod
    def triggers(self) -> dict[str, Any]:
        """Which triggers the gate's database should have, and has."""

    @abstractmethod
    def deployment(self) -> dict[str, Any]:
        """What stands around the gate: see `gate.deployment.Deployment`.

        Raises:
            UsageError: This user is not told.
        """

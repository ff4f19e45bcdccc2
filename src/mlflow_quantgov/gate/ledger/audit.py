"""What an auditor asks of the store that this is mixed into."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.database.granting import knows
from mlflow_quantgov.gate.ledger.chain import Verification, Wrong
from mlflow_quantgov.gate.ledger.replay import recorded
from mlflow_quantgov.gate.pointers.listing import Stood, all_pointers
from mlflow_quantgov.gate.pointers.standing import problem, wrong


class Audit:
    """Questions about the ledger, and about the triggers that guard it."""

    def quantgov_triggers(self: Any) -> triggers.Status:
        """Which triggers the database should have, and has; `quantgov_rules` is changed where they enforce another policy."""
        with self._sessions() as session:
            found, told = triggers.status(session.connection()), knows(session, self._policy)
        return found if told else replace(found, changed=(*found.changed, "quantgov_rules"))

    def quantgov_verify(self: Any, wanted: Collection[int] = ()) -> Verification:
        """Whether the ledger's chain is unbroken, and every protected pointer stands where the ledger has put it.

        Args:
            wanted: Numbers of rows whose hashes are asked for.
        """
        with self._sessions() as session:
            found = ledger.verify(session, wanted)
            doubtful = [held for held in all_pointers(session) if problem(session, self._policy, held) is not None]
        pointers = tuple(one for held in doubtful if (one := self._still_wrong(held)) is not None)
        return replace(found, ok=found.ok and not pointers, pointers=pointers)

    def quantgov_export(self: Any) -> Iterator[dict[str, Any]]:
        """Every row of the ledger, whole, from the first; a few at a time."""
        with self._sessions() as session:
            yield from ledger.whole_rows(session)

    def quantgov_record(self: Any, decision_id: str) -> dict[str, Any]:
        """Everything that a decision needs to be made again.

        Raises:
            UsageError: There is no such decision, or it is of a version that kept no facts.
            TamperingError: What it rests on is gone.
        """
        with self._sessions() as session:
            return recorded(session, decision_id)

    def _still_wrong(self: Any, held: Stood) -> Wrong | None:
        """Look again where nobody can move anything: pointer and row are read one after the other."""
        with self._sessions.transaction() as session:
            ledger.lock(session)
            now = next((one for one in all_pointers(session) if _same_place(one, held)), None)
            return None if now is None else wrong(session, self._policy, now)


def _same_place(one: Stood, other: Stood) -> bool:
    same = (one.workspace, one.model, one.destination) == (other.workspace, other.model, other.destination)
    return same and (one.is_alias or one.version == other.version)

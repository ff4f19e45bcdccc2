"""What only a server asks of its store: mixed into it."""

from __future__ import annotations

from typing import Any

from mlflow.utils.workspace_context import ServerWorkspaceContext
from sqlalchemy import select

from mlflow_quantgov.gate.tables import LedgerRow


class ServerSide:
    """Answers to the server's own pages and hooks."""

    def quantgov_model_of(self: Any, decision_id: str) -> str | None:
        """The registered model that a row of the ledger is about."""
        with self._sessions() as session:
            found = session.execute(select(LedgerRow.model).where(LedgerRow.decision_id == decision_id)).first()
        return None if found is None else found[0]

    def quantgov_guard_workspace(self: Any, workspace: str) -> None:
        """Refuse to have a workspace deleted while a gated pointer stands in it: its models go or move with it.

        Raises:
            MlflowException: A gated pointer stands there (403).
        """
        with ServerWorkspaceContext(workspace):
            found = self.gated_pointers_here(self._policy)
            reasons = [f"{held.destination} of {name} points to version {held.version}" for name, held in found]
            self._guard(f"workspace {workspace}", "", reasons, "deleted")

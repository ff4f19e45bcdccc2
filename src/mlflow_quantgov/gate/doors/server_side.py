"""What only a server asks of its store: mixed into it."""

from __future__ import annotations

from typing import Any

from mlflow.entities import LoggedModel
from mlflow.utils.workspace_context import ServerWorkspaceContext

from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database import workspaces
from mlflow_quantgov.gate.database.outages import tried_again
from mlflow_quantgov.gate.doors.actor import current_actor
from mlflow_quantgov.gate.doors.refusals import refusal
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.gate.pointers.listing import let_through
from mlflow_quantgov.gate.write_once.logged_models import is_registered, named_version
from mlflow_quantgov.policy.matching import observes

_MOVE = "move the alias or stage away first"


class ServerSide:
    """Answers to the server's own pages and hooks."""

    def quantgov_row(self: Any, decision_id: str) -> dict[str, Any] | None:
        """One row of the ledger, without its body."""
        with self._sessions() as session:
            return ledger.row(session, decision_id)

    @tried_again
    def quantgov_guard_workspace(self: Any, workspace: str) -> None:
        """Refuse to have a workspace deleted while versions in it stand at gated pointers, or stood there: they go or move with it.

        Of what stood there the ledger would no longer say what became of it; deleted one by one, it does.

        Raises:
            MlflowException: There is such a version, or this server's policy is not in force any more (403).
        """
        with ServerWorkspaceContext(workspace), self._sessions.transaction() as session:
            self._take_ledger(session)
            found = [
                (one.model, f"{one.destination} of {one.model} points to version {one.version}", _MOVE)
                for one in self._gated_pointers(session, workspace)
            ]
            found += [
                (model, f"{model} version {version} was let through to {where}", f"delete {model} first")
                for model, version, where in let_through(session, workspace)
            ]
            enforced = [one for one in found if not observes(self._policy, one[0])]
            if found:
                actor, source = current_actor()
                kind, word = ("denial", "refused") if enforced else ("deletion", "observed")
                body = {"reasons": [reason for _, reason, _ in found]}
                where = f"workspace {workspace}"
                ledger.append(session, Entry(kind, actor, source, None, None, where, word, self._policy.digest, body))
        if enforced:
            _, reason, fix = enforced[0]
            raise refusal(f"quantgov refused: workspace {workspace} cannot be deleted, because {reason}. Fix: {fix}.")

    @tried_again
    def quantgov_guard_logged_model(self: Any, model: LoggedModel) -> None:
        """Refuse to have a LoggedModel deleted while registered versions are made of its files, whatever points to them.

        Raises:
            MlflowException: There is such a version (403).
        """
        if not is_registered(self.engine, model):
            return
        with self._sessions.transaction() as session:
            self._take_ledger(session)
            actor, source = current_actor()
            name, version = named_version(session, model, workspaces.current()) or (None, None)
            made = f"{name} version {version}" if name else "a registered version"
            reason = f"logged model {model.model_id} holds the files of {made}"
            ledger.append(session, Entry("denial", actor, source, name, version, None, "refused",
                                         self._policy.digest, {"reasons": [reason]}))  # fmt: skip
        raise refusal(
            f"quantgov refused: logged model {model.model_id} cannot be deleted, because {made} was made from it, and "
            "whoever loads that version would not find it. Fix: delete the version first."
        )

"""Names at the door: refused where nobody could see what they say, or where they pass for a protected one."""

from __future__ import annotations

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mlflow_quantgov.errors import short
from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database.outages import tried_again
from mlflow_quantgov.gate.doors.actor import current_actor
from mlflow_quantgov.gate.doors.refusals import refusal
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.policy.matching import destination_kind, looks_like_another, looks_like_gated, observes
from mlflow_quantgov.policy.names import MAX_NAME, fold, unseen


class NameDoor:
    """Stands before the gate, as the first of a store's classes: it looks at names and passes everything on."""

    @tried_again
    def create_registered_model(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        """Guarded: make a registered model; its name must be one that people can tell from others."""
        self._admit_model(name)
        return super().create_registered_model(name, *args, **kwargs)  # type: ignore[misc]

    @tried_again
    def rename_registered_model(self: Any, name: str, new_name: str) -> Any:
        """Guarded: the new name must be one that people can tell from others."""
        self._admit_model(new_name)
        return super().rename_registered_model(name, new_name)  # type: ignore[misc]

    @tried_again
    def set_registered_model_alias(self: Any, name: str, alias: str, version: str) -> None:
        """Guarded: an alias that only looks like a gated one, or is a second spelling of it, would stand beside it."""
        if not observes(self._policy, name):
            _readable(alias, "alias")
            alike = looks_like_gated(self._policy, name, f"@{alias}")
            if alike is not None:
                self._turn_away(name, version, alias, f"it only looks like {alike}, which is gated", alike[1:])
            other = self._other_spelling(name, alias)
            if other is not None:
                self._turn_away(name, version, alias, f"the alias is written {other!r} in this model", other)
        super().set_registered_model_alias(name, alias, version)  # type: ignore[misc]

    def _admit_model(self: Any, name: str) -> None:
        if not isinstance(name, str):
            return
        if not observes(self._policy, name):
            _readable(name, "model name")
        alike = looks_like_another(self._policy, name)
        if alike is not None:
            reason = f"it only looks like a model of the policy's rule {alike!r} and would not stand under it"
            self._turn_away(name, None, None, reason, "plain letters")

    def _other_spelling(self: Any, name: str, alias: str) -> str | None:
        """A gated alias of this model that is the same name in other letters."""
        if destination_kind(self._policy, name, f"@{alias}") != "gated":
            return None
        held = dict(self.get_registered_model(name).aliases or {})
        return None if alias in held else next((one for one in held if fold(one) == fold(alias)), None)

    def _turn_away(self: Any, name: str, version: str | None, alias: str | None, reason: str, better: str) -> None:
        """Record the denial, and refuse."""
        actor, source = current_actor()
        destination = None if alias is None else f"@{alias}"
        entry = Entry("denial", actor, source, name, None if version is None else str(version), destination,
                      "refused", self._policy.digest, {"reasons": [reason]})  # fmt: skip
        with self._sessions.transaction() as session:
            self._take_ledger(session)
            ledger.append(session, entry)
        what = "alias" if alias is not None else "model name"
        raise refusal(
            f"quantgov refused the {what} {(alias or name)!a}: {reason}, so people would take one for the other. "
            f"Fix: use {better}"
        )


def _readable(name: str, what: str) -> None:
    """Refuse a name that no screen shows whole, or that not every database holds."""
    sign = unseen(name)
    if sign is not None:
        raise MlflowException(
            f"quantgov refused the {what} {short(ascii(name), quoted=False)}: it holds {sign}, which no screen shows, so "
            f"two names could look the same. Fix: use {short(ascii(fold(name)), quoted=False)}",
            error_code=INVALID_PARAMETER_VALUE,
        )
    if len(name) > MAX_NAME:
        raise MlflowException(
            f"quantgov refused a {what} of {len(name):,} characters: not every database holds it. "
            f"Fix: use at most {MAX_NAME} characters",
            error_code=INVALID_PARAMETER_VALUE,
        )

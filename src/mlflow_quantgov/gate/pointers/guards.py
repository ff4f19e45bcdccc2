"""Which versions and models a gated pointer or a rollback rests on, and what may not be taken from under it.

Facts are gathered before the transaction. Inside it, under the lock of the model and of the ledger, every pointer is read
again: one that has come meanwhile was promoted through the gate, so the ledger says what it rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException
from sqlalchemy.orm import Session

from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database import workspaces
from mlflow_quantgov.gate.database.granting import granted
from mlflow_quantgov.gate.database.tables import LedgerRow
from mlflow_quantgov.gate.doors.actor import current_actor
from mlflow_quantgov.gate.doors.refusals import refusal
from mlflow_quantgov.gate.facts.sources import version_named
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.gate.pointers.believing import standing
from mlflow_quantgov.gate.pointers.listing import Stood, all_pointers
from mlflow_quantgov.policy.matching import creation_gated, destination_kind, observes
from mlflow_quantgov.policy.schema import Policy

_ATTEMPTS = 5
Result = TypeVar("Result")
Rests = dict[Stood, frozenset[tuple[str, str]]]
"""Pointer to what it rests on beside its own version: model and version of its parent, and of what it rolls back to."""


@dataclass(frozen=True)
class Deed:
    """What is about to be taken away, or renamed."""

    kind: str
    """Of the ledger's row: `deletion` or `rename`."""
    model: str
    version: str | None = None
    """None for the whole model."""
    new_name: str | None = None

    @property
    def words(self) -> str:
        """For people."""
        what = f"{self.model} version {self.version}" if self.version else self.model
        return f"{what} cannot be {'renamed' if self.new_name else 'deleted'}"

    def takes_from(self, held: Stood, needs: frozenset[tuple[str, str]]) -> str | None:
        """Words for how it takes something from under a pointer; None where it does not."""
        if held.model == self.model and self.version in {None, held.version}:
            return f"{held.destination} points to {'it' if self.version else f'version {held.version}'}"
        if not any(model == self.model and self.version in {None, version} for model, version in needs):
            return None
        if held.model == self.model:
            return f"it is what {held.destination} rolls back to"
        return f"it is what {held.model} version {held.version} at {held.destination} was made from"


class Guards:
    """Questions about pointers, and the deeds that they forbid, asked of the store that this is mixed into."""

    def _guarded(self: Any, deed: Deed, change: Callable[[], Result]) -> Result:
        """Do it, unless a gated pointer or a rollback rests on what it takes away; either is recorded."""
        self.get_registered_model(deed.model)  # 404 where there is none
        workspace = workspaces.current()
        rests: Rests = {}
        for _ in range(_ATTEMPTS):
            self._gather_rests(rests, deed.model, workspace)
            enforced = None
            with self._sessions.transaction() as session:
                self._lock(session, deed.model)
                self._take_ledger(session)
                found = self._reasons(session, deed, rests, workspace)
                if found is not None:
                    enforced = [words for model, words in found if not observes(self._policy, model)]
                    if not enforced:
                        said = [words for _, words in found]
                        row = self._record_deed(session, deed, said, "observed" if said else "recorded")
                        with granted(session, row):
                            return change()
            if enforced:
                with self._sessions.transaction() as session:
                    self._take_ledger(session)
                    self._record_deed(session, deed, enforced, "refused")
                raise refusal(
                    f"quantgov refused: {deed.words}, because {enforced[0]}. Fix: move the alias or stage away first."
                )
        raise refusal(f"quantgov refused: {deed.words}: its aliases and stages kept moving. Fix: try again.")

    def _gather_rests(self: Any, rests: Rests, model: str, workspace: str) -> None:
        """What each gated pointer rests on: by the ledger where a decision says it, else by the files."""
        with self._sessions() as session:
            held = [one for one in self._gated_pointers(session, workspace) if one not in rests]
            known = {one: _by_ledger(session, self._policy, one) for one in held}
        for one, found in known.items():
            with suppress(MlflowException):  # it was taken away meanwhile
                rests[one] = found if found is not None else self._by_files(one, whole=one.model == model)

    def _by_files(self: Any, stood: Stood, *, whole: bool) -> frozenset[tuple[str, str]]:
        """What was written down at logging; for versions of the model itself also which one its rollback goes to."""
        if not whole:
            return frozenset(self._gatherer.claimed_parent(self.reference(stood.model, stood.version)))
        lineage = self.quantgov_facts(stood.model, stood.version).lineage
        return _named(stood.model, lineage.parent_uri, lineage.parent_version) if lineage is not None else frozenset()

    def _reasons(self: Any, session: Session, deed: Deed, rests: Rests, workspace: str) -> list[tuple[str, str]] | None:
        """Why it may not be done, with the model whose rule forbids it; None where something new has to be looked at first."""
        found = []
        for one in self._gated_pointers(session, workspace):
            needs = rests[one] if one in rests else _by_ledger(session, self._policy, one)
            if needs is None:
                return None
            words = deed.takes_from(one, needs)
            if words is not None:
                found.append((one.model, words))
        return found + _of_new_name(self._policy, deed, all_pointers(session, workspace, deed.model))

    def _record_deed(self: Any, session: Session, deed: Deed, reasons: list[str], word: str) -> LedgerRow:
        actor, source = current_actor()
        kind = "denial" if word == "refused" else deed.kind
        where = None if word == "refused" else deed.new_name
        body = {"reasons": reasons} if reasons else {}
        return ledger.append(
            session, Entry(kind, actor, source, deed.model, deed.version, where, word, self._policy.digest, body)
        )

    def _gated_pointers(self: Any, session: Session, workspace: str) -> list[Stood]:
        """Gated aliases and stages at which a version stands."""
        found = [one for one in all_pointers(session, workspace) if one.created is not None]
        return [one for one in found if destination_kind(self._policy, one.model, one.destination) == "gated"]


def _of_new_name(policy: Policy, deed: Deed, held: Iterable[Stood]) -> list[tuple[str, str]]:
    """Pointers survive a rename, so it may not carry one to where it would be protected."""
    new = deed.new_name
    if new is None:
        return []
    reasons = [
        f"{one.destination} is protected under the new name"
        for one in held
        if destination_kind(policy, new, one.destination) != "open"
    ]
    reasons += ["the new name is protected"] if creation_gated(policy, new) else []
    return [(new, words) for words in reasons]


def _by_ledger(session: Session, policy: Policy, stood: Stood) -> frozenset[tuple[str, str]] | None:
    """What a pointer rests on by the decision that allowed it; None where no decision says so."""
    _, bound = standing(session, policy, stood)
    if "parent" not in bound or (bound["parent"] and not bound["rolls_back_to"]):
        return None
    return _named(stood.model, bound["parent"], bound["rolls_back_to"])


def _named(model: str, parent_uri: str | None, rolls_back_to: str | None) -> frozenset[tuple[str, str]]:
    named = version_named(parent_uri)
    return frozenset(([(model, rolls_back_to)] if rolls_back_to else []) + ([named] if named else []))

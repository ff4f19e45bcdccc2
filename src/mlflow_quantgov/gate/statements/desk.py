"""Where statements come in and items for spot-checks are drawn: asked of the store that this is mixed into."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mlflow_quantgov.errors import ArtifactError, EvidenceError, pasted
from mlflow_quantgov.evidence.predicates import Approval, Predicate, SpotCheck, Waiver
from mlflow_quantgov.evidence.signing import read_attached
from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database.outages import tried_again
from mlflow_quantgov.gate.doors.actor import current_actor
from mlflow_quantgov.gate.ledger import Entry
from mlflow_quantgov.gate.statements.approving import destination_of, refuse_unfit
from mlflow_quantgov.gate.statements.draws import draw, evaluation_named
from mlflow_quantgov.gate.statements.intake import take_in
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.spot_check_faults import fault


class Desk:
    """Takes statements in, and draws."""

    @tried_again
    def quantgov_take_in(self: Any, name: str, version: str, data: bytes) -> Evidence:
        """Take in a statement about a version or its parent.

        Raises:
            ArtifactError: The files of the version cannot be read, so that nobody knows what it may be about.
            EvidenceError: Malformed, about other bytes, imported for another pair, its summary is not what its records give,
                its signature does not fit, it is a waiver or an approval that nobody with the role has given for this version, or a spot-check of
                other items than were drawn.
            MlflowException: There is no such version; or it lets something through, and this process's files are not in force (403).
        """
        version = self._number(name, version)
        facts = _readable(self.quantgov_facts(name, version))
        read = (facts.lineage.parent if facts.lineage else None, facts.model)
        behaviours = {one.weights: one.behaviour for one in read if one}
        attached = read_attached(data)
        _refuse_faulty(attached.statement.content(), facts)
        actor, source = current_actor()
        if attached.statement.kind in {Approval.KIND, Waiver.KIND}:
            self.quantgov_refuse_stale()  # what lets something through is given under the policy in force
        refuse_unfit(attached, facts, self._policy, self._keys, actor, source, datetime.now(UTC))
        with self._sessions.transaction() as session:
            ref = self.reference(name, version)
            taken = take_in(session, ref, data, behaviours, self._keys, actor=actor, actor_source=source)
            signers = [{"key": one.key, "name": one.name, "standing": one.standing} for one in taken.signatures]
            body = {"statement": taken.digest, "kind": taken.kind, "subject": taken.subject, "signed_by": signers}
            where = destination_of(taken)
            ledger.append(session, Entry("statement", actor, source, name, version, where, "recorded", None, body))
        return taken

    @tried_again
    def quantgov_draw(self: Any, name: str, version: str, statement: str | None = None) -> dict[str, Any]:
        """What decides which items of an evaluation are measured again, by whoever asks.

        Drawn once for each evaluation and each person, after the evaluation was taken in; asking again gives the same, so that
        nobody draws until they like it.

        Args:
            name: Registered model.
            version: Its version.
            statement: Digest of the evaluation, or how it begins; None for the one that counts most.

        Returns:
            `statement`, `content` (the bytes that were kept), `seed`, `drawn_for`, `drawn_at`.

        Raises:
            ArtifactError: The files of the version cannot be read.
            UsageError: There is no such evaluation of this version.
            MlflowException: There is no such version.
        """
        version = self._number(name, version)
        evaluation = evaluation_named(_readable(self.quantgov_facts(name, version)), statement)
        digest, (actor, source) = evaluation.digest, current_actor()
        with self._sessions.transaction() as session:
            made, is_new = draw(session, digest, actor=actor, actor_source=source, now=datetime.now(UTC))
            if is_new:
                body = {"statement": digest, "drawn_for": made.actor, "seed": made.seed}
                ledger.append(session, Entry("draw", actor, source, name, version, None, "recorded", None, body))
        return {
            "statement": digest,
            "content": evaluation.statement.to_bytes().decode(),
            "seed": made.seed,
            "drawn_for": made.actor,
            "drawn_at": made.drawn_at.isoformat(),
        }


def _readable(facts: Facts) -> Facts:
    """The facts, unless there are none because the files cannot be read: what belongs to them is then unknown, not wrong."""
    if facts.model is None and facts.problems:
        raise ArtifactError(
            facts.problems[0],
            why="Evidence belongs to the bytes of a version, and these cannot be read now; nothing was changed.",
            fix="quantgov doctor",
        )
    return facts


def _refuse_faulty(content: Predicate, facts: Facts) -> None:
    """Refuse a spot-check that would count for nothing, while whoever made it still looks on."""
    if not isinstance(content, SpotCheck):
        return
    evaluation = next((one for one in facts.evidence if one.digest == content.evaluation), None)
    problem = "its evaluation was not taken in" if evaluation is None else fault(content, evaluation, facts.draws)
    if problem is not None:
        raise EvidenceError(
            f"The spot-check does not count: {problem}.",
            why="Items that somebody chose, or that were recorded otherwise, show nothing.",
            fix=f"quantgov spot-check {pasted(f'models:/{facts.name}/{facts.version}')} --items 20",
        )

"""Draws for spot-checks: made by the server after the evaluation was attached, and kept, so that asking again changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import UsageError, pasted
from mlflow_quantgov.evidence.drawing import new_seed
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.gate.database.tables import DrawRow
from mlflow_quantgov.gate.statements.signatures import utc
from mlflow_quantgov.policy.facts import Draw, Evidence, Facts
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.spot_check_faults import evaluations_of


def draw(session: Session, statement: str, *, actor: str, actor_source: str, now: datetime) -> tuple[Draw, bool]:
    """The draw of one evaluation for somebody, and whether it was made only now.

    Args:
        session: Of the gate's database; the caller commits.
        statement: Digest of the evaluation, which has been taken in.
        actor: Who asks.
        actor_source: How that is known.
        now: By the gate's clock.
    """
    key = (statement, fold(actor)[:300])
    row = session.get(DrawRow, key)
    is_new = row is None
    if row is None:
        row = DrawRow(statement=key[0], actor=key[1], seed=new_seed(), actor_source=actor_source, drawn_at=now)
        session.add(row)
        session.flush()
    return _of(row), is_new


def evaluation_named(facts: Facts, digest: str | None) -> Evidence:
    """The task evaluation of a version that somebody means.

    Args:
        facts: What is known of the version.
        digest: How its digest begins; None for the evaluation that counts most.

    Raises:
        UsageError: The version has no such evaluation.
    """
    found = [one for one in facts.of_kind(TaskEval.KIND) if one.digest.startswith(digest or "")]
    if not found:
        raise UsageError(
            f"{facts.name} version {facts.version} has no task evaluation{f' {digest[:80]}' if digest else ''}.",
            why="What was not evaluated cannot be checked.",
            fix=f"quantgov evaluate {pasted(f'models:/{facts.name}/{facts.version}')} --tasks DIR",
        )
    return found[-1]


def with_draws(facts: Facts, sessions: Callable[[], AbstractContextManager[Session]] | None) -> Facts:
    """Facts with what was drawn of the evaluations that a check may read, oldest first; unchanged where nothing is kept."""
    if sessions is None:
        return facts
    evaluations = [one.digest for one in evaluations_of(facts)]
    query = select(DrawRow).where(DrawRow.statement.in_(evaluations)).order_by(DrawRow.drawn_at, DrawRow.actor)
    with sessions() as session:
        return replace(facts, draws=tuple(_of(row) for row in session.execute(query).scalars()))


def _of(row: DrawRow) -> Draw:
    return Draw(row.statement, row.seed, row.actor, utc(row.drawn_at))

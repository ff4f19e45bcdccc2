"""A recorded decision, decided again from what was kept: policy, statements and facts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlflow_quantgov.errors import TamperingError, UsageError, no_such_file
from mlflow_quantgov.evidence.statement import sha256_digest
from mlflow_quantgov.gate.database.tables import FactsRow, LedgerRow, PolicyRow, StatementRow
from mlflow_quantgov.gate.ledger.snapshots import named_statements, restore
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.loader import parse_policy
from mlflow_quantgov.version import __version__

_ADDED = frozenset({"decision_id", "facts", "engine", "requester", "creation"})
"""What a row's body says beyond the decision."""


@dataclass(frozen=True)
class Replay:
    """Whether a decision comes out as it was recorded."""

    decision_id: str
    same: bool
    recorded: str
    """`allowed` or `refused`."""
    replayed: str
    engine: str
    """Version that decided then."""
    differs: tuple[str, ...]
    """Parts of the decision that came out otherwise."""


def recorded(session: Session, decision_id: str) -> dict[str, Any]:
    """Everything that a decision needs to be made again: `body`, `policy`, `facts`, `statements` (digest to text).

    Raises:
        UsageError: There is no such decision, or it is of a version that kept no facts.
    """
    row = session.execute(select(LedgerRow).where(LedgerRow.decision_id == decision_id)).scalar_one_or_none()
    if row is None or row.kind not in {"promotion", "denial"}:
        raise UsageError(
            f"The ledger holds no decision {decision_id[:100]}.",
            why="Only a recorded promotion or denial can be made again.",
            fix="quantgov audit log",
        )
    body = json.loads(row.body)
    facts = session.get(FactsRow, body.get("facts", ""))
    policy = session.get(PolicyRow, row.policy_digest or "")
    if "facts" not in body:
        raise UsageError(
            f"The decision {decision_id} rests on no kept facts.",
            why="It was refused for what stands in the registry alone, or is of a version that did not keep them.",
            fix="quantgov audit log",
        )
    if facts is None or policy is None:
        raise TamperingError(
            f"The {'facts' if facts is None else 'policy'} of the decision {decision_id} {'are' if facts is None else 'is'} gone.",
            why="They were kept when it was made.",
            fix="quantgov audit verify",
        )
    query = select(StatementRow.digest, StatementRow.content).where(
        StatementRow.digest.in_(named_statements(facts.content))
    )
    statements = {digest: content.decode() for digest, content in session.execute(query)}
    return {
        "decision_id": decision_id,
        "body": body,
        "policy": policy.text,
        "facts": facts.content.decode(),
        "statements": statements,
    }


def read_record(path: Path) -> dict[str, Any]:
    """Read what was saved of a decision.

    Raises:
        UsageError: It is no such file.
    """
    if not path.is_file():
        raise no_such_file(path, "Nothing was replayed.")
    try:
        record = json.loads(path.read_bytes())
        known = {name: record[name] for name in ("decision_id", "body", "policy", "facts", "statements")}
        known["body"]["policy"]["digest"], known["body"]["facts"], known["body"]["destination"]
        texts = (known["policy"], known["facts"], *known["statements"].values())
        if not all(isinstance(one, str) for one in texts):
            raise TypeError("a part is no text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path.name} is no record of a decision: {type(error).__name__}.",
            why="Nothing was replayed.",
            fix="quantgov audit replay DECISION_ID -o FILE",
        ) from error
    return known


def replay(record: dict[str, Any]) -> Replay:
    """Decide again; pure, needs no server.

    Args:
        record: What `recorded` gave.

    Raises:
        TamperingError: Something is not what its digest says.
    """
    body, facts = record["body"], record["facts"].encode()
    policy = parse_policy(record["policy"], source="the kept policy")
    for what, found, wanted in (
        ("policy", policy.digest, body["policy"]["digest"]),
        ("facts", sha256_digest(facts), body["facts"]),
    ):
        if found != wanted:
            raise TamperingError(
                f"The kept {what} of the decision {record['decision_id']} has another digest than its row says.",
                why="Somebody has changed one of them.",
                fix="quantgov audit verify",
            )
    statements = {digest: text.encode() for digest, text in record["statements"].items()}
    now = datetime.fromisoformat(body["decided_at"])
    made = decide(policy, restore(facts, statements, now=now, requester=body["requester"]), body["destination"])
    again = json.loads(json.dumps(made.to_dict(), default=str))
    # A version that was judged before it existed got its number only when it was let through.
    again["version"] = body["version"] if again["version"] == "new" else again["version"]
    differs = tuple(sorted(key for key in again.keys() | body.keys() - _ADDED if again.get(key) != body.get(key)))
    differs = tuple(key for key in differs if key not in _ADDED)
    return Replay(
        record["decision_id"],
        not differs,
        body["decision"],
        again["decision"],
        body.get("engine", __version__),
        differs,
    )

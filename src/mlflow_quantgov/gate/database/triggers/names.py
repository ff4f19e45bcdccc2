"""What the triggers stand on, and what they say."""

from __future__ import annotations

from mlflow_quantgov.gate.database.tables import (
    DrawRow,
    FactsRow,
    KeysRow,
    LedgerRow,
    PolicyRow,
    SignatureRow,
    StatementRow,
)

ALIASES, VERSIONS = "registered_model_aliases", "model_versions"
LEDGER, GRANTS = LedgerRow.__tablename__, "quantgov_grants"
GUARD, RULES = "quantgov_guard", "quantgov_rules"
KEPT: dict[str, tuple[str, ...]] = {
    row.__tablename__: tuple(column.name for column in row.__mapper__.primary_key)
    for row in (LedgerRow, StatementRow, SignatureRow, KeysRow, PolicyRow, DrawRow, FactsRow)
}
"""Tables whose rows are never changed or removed, with their keys."""

PREFIX = "quantgov_"
DEFAULT_WORKSPACE = "default"
GONE = "Deleted_Internal"
POINTER_REFUSED = (
    "quantgov refused: the policy protects this, and the gate allowed no such change in this transaction. "
    "Fix: ask the gated server (quantgov promote, quantgov rollback)"
)
KEPT_REFUSED = "quantgov refused: the ledger and what it rests on are never changed or removed"
CHAIN_REFUSED = "quantgov refused: a row of the ledger goes on from the last one, and no other place"
RULES_REFUSED = (
    "quantgov refused: what the triggers enforce changes with the policy of the gate. "
    "Fix: change its file, and start the gated server again"
)
GRANT_REFUSED = "quantgov refused: only the newest row of the ledger allows a change, and only the one that it names"

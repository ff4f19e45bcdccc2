"""The gate's tables as an earlier version left them."""

from __future__ import annotations

from sqlalchemy import Connection, text

from mlflow_quantgov.gate.database import triggers

SINCE = {
    "0002": ("quantgov_signatures", "quantgov_keys"),
    "0003": ("quantgov_draws",),
    "0004": ("quantgov_facts", "quantgov_guard", "quantgov_rules", "quantgov_grants"),
}


def back_to(connection: Connection, revision: str) -> None:
    """Undo the migrations after one."""
    triggers.remove(connection)
    for later, tables in SINCE.items():
        for table in tables if later > revision else ():
            connection.execute(text(f"DROP TABLE {table}"))
    connection.execute(text("ALTER TABLE quantgov_ledger DROP COLUMN workspace"))
    for column in ("behaviour", "parent_behaviour"):
        connection.execute(text(f"ALTER TABLE quantgov_statements DROP COLUMN {column}"))
    connection.execute(text(f"UPDATE alembic_version_quantgov SET version_num = '{revision}'"))

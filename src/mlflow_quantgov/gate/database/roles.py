"""PostgreSQL roles: an owner who migrates, a gate that may add to the ledger and no more, and everybody else."""

from __future__ import annotations

import re

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.gate.database.tables import Base
from mlflow_quantgov.gate.database.triggers.names import KEPT
from mlflow_quantgov.gate.database.upgrade import VERSION_TABLE

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_READ_ONLY = (VERSION_TABLE, "alembic_version")


def grants(gate: str, others: str, schema: str = "public") -> list[str]:
    """Statements for the owner of the tables to run, after `quantgov db upgrade`; running them again changes nothing.

    Args:
        gate: Role of the gated server.
        others: Role of whoever else writes to MLflow's tables: ungated tracking servers, scripts.
        schema: Where the tables are.

    Raises:
        UsageError: A name is none that PostgreSQL takes without quotes.
    """
    for name in (gate, others, schema):
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name[:100]!r} is no plain name of a role or schema.",
                why="It becomes part of SQL.",
                fix="quantgov db roles --gate mlflow_gate --others mlflow_users",
            )
    both, ours = f"{gate}, {others}", sorted(Base.metadata.tables)
    kept, working = sorted(KEPT), sorted(set(ours) - KEPT.keys())
    return [
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {both}",
        f"GRANT USAGE ON SCHEMA {schema} TO {both}",
        f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {both}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {both}",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {both}",
        f"REVOKE INSERT, UPDATE, DELETE ON {_list(schema, _READ_ONLY)} FROM {both}",
        f"REVOKE ALL ON {_list(schema, ours)} FROM {both}",
        f"GRANT SELECT, INSERT ON {_list(schema, kept)} TO {gate}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {_list(schema, working)} TO {gate}",
    ]


def _list(schema: str, tables: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"{schema}.{table}" for table in tables)

"""Triggers in the database itself, for those who reach it with an ungated server or a script (docs/adr/0017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from mlflow_quantgov.errors import UnreachableError
from mlflow_quantgov.gate.database.triggers import postgresql, sqlite
from mlflow_quantgov.gate.database.triggers.names import PREFIX

OFF = "QUANTGOV_NO_TRIGGERS"


@dataclass(frozen=True)
class Status:
    """Which triggers this database should have, and has."""

    expected: tuple[str, ...]
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    """There, but switched off or with another definition than this version's."""
    mode: str | None
    """What they do: `enforce`, `observe`; None where no gate has told them yet, which enforces with every destination closed."""
    policy_digest: str | None
    """Digest of the policy that they enforce."""

    @property
    def ok(self) -> bool:
        """Whether all are there, as this version makes them."""
        return not self.missing and not self.changed

    def to_dict(self) -> dict[str, Any]:
        """As `quantgov db triggers --status --json` prints it."""
        return {
            "ok": self.ok,
            "expected": len(self.expected),
            "present": len(self.expected) - len(self.missing),
            "missing": list(self.missing),
            "changed": list(self.changed),
            "mode": self.mode,
            "policy": self.policy_digest,
        }


def status(connection: Connection) -> Status:
    """Compare what is there with what this version makes."""
    wanted = _wanted(connection)
    there = _there(connection)
    guard = connection.execute(text("SELECT mode, policy_digest FROM quantgov_guard WHERE id = 1")).one_or_none()
    return Status(
        expected=tuple(wanted),
        missing=tuple(name for name in wanted if name not in there),
        changed=tuple(name for name, made in wanted.items() if name in there and there[name] != made),
        mode=guard[0] if guard else None,
        policy_digest=guard[1] if guard else None,
    )


def install(connection: Connection) -> None:
    """Make all anew; the caller commits. Whoever calls has to own MLflow's tables."""
    remove(connection)
    for statement in _making(connection):
        connection.exec_driver_sql(statement)


def remove(connection: Connection) -> None:
    """Take all away, those of other versions too; the caller commits."""
    if connection.dialect.name == "sqlite":
        for name in _there(connection):
            connection.execute(text(f'DROP TRIGGER "{name}"'))
        return
    for name, table in connection.execute(text(_PG_PLACES)).all():
        connection.execute(text(f'DROP TRIGGER "{name}" ON "{table}"'))
    for signature in connection.execute(text(_PG_SIGNATURES)).scalars().all():
        connection.execute(text(f"DROP FUNCTION {signature}"))


def ensure(connection: Connection) -> None:
    """Put the triggers back where they are missing or were changed: a migration of MLflow may have dropped some.

    Raises:
        UnreachableError: They are missing, and this role may not make them.
    """
    found = status(connection)
    if found.ok:
        return
    try:
        install(connection)
    except DBAPIError as error:
        gone = (*found.missing, *found.changed)
        raise UnreachableError(
            f"{len(gone)} triggers of this database are missing or changed ({gone[0]}), "
            "and this role may not put them back.",
            why="Without them a script on the same database could move a protected alias.",
            fix="quantgov db triggers --backend-store-uri URI-OF-THE-OWNER; or: quantgov server --no-triggers",
        ) from error


def _wanted(connection: Connection) -> dict[str, str]:
    if connection.dialect.name == "sqlite":
        return sqlite.definitions()
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    found = {name: f"O {_pg_trigger(name, one)}" for name, one in postgresql.triggers().items()}
    found |= {f"{name}()": f"{one.body} {_search_path(schema)}" for name, one in postgresql.functions().items()}
    return found


def _there(connection: Connection) -> dict[str, str]:
    if connection.dialect.name == "sqlite":
        query = f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB '{PREFIX}*'"
        return {row.name: row.sql for row in connection.execute(text(query))}
    found = {name: f"{enabled} {made}" for name, enabled, made in connection.execute(text(_PG_TRIGGERS))}
    found |= {
        f"{name}()": f"{body} {','.join(settings or [])}{'' if definer else ' (not as its owner)'}"
        for name, body, definer, settings in connection.execute(text(_PG_FUNCTIONS))
    }
    return found


def _making(connection: Connection) -> list[str]:
    if connection.dialect.name == "sqlite":
        return list(sqlite.definitions().values())
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    statements = []
    for name, one in postgresql.functions().items():
        path = f"SET search_path TO {_quoted(schema)}, pg_temp"
        statements.append(
            f"CREATE FUNCTION {name}({one.declared}) RETURNS {one.returns} LANGUAGE {one.language} "
            f"SECURITY DEFINER {path} AS $quantgov${one.body}$quantgov$"
        )
        statements.append(f"REVOKE ALL ON FUNCTION {name}({one.arguments}) FROM PUBLIC")
    statements += [_pg_trigger(name, one) for name, one in postgresql.triggers().items()]
    return statements


def _pg_trigger(name: str, one: postgresql.Trigger) -> str:
    return (
        f"CREATE TRIGGER {name} BEFORE {one.events} ON {one.table} "
        f"FOR EACH {one.each} EXECUTE FUNCTION {one.function}()"
    )


def _search_path(schema: str) -> str:
    return f"search_path={_quoted(schema)}, pg_temp"


def _quoted(schema: str) -> str:
    return schema if schema.isidentifier() and schema.islower() else '"' + schema.replace('"', '""') + '"'


_OURS = f"t.tgrelid = c.oid AND c.relnamespace = current_schema()\\:\\:regnamespace AND t.tgname LIKE '{PREFIX[:-1]}%'"
_PG_TRIGGERS = f"""
SELECT t.tgname, t.tgenabled, pg_get_triggerdef(t.oid, true)
FROM pg_trigger t JOIN pg_class c ON {_OURS} WHERE NOT t.tgisinternal
"""
_PG_PLACES = f"SELECT t.tgname, c.relname FROM pg_trigger t JOIN pg_class c ON {_OURS} WHERE NOT t.tgisinternal"
_PG_OWN = f"p.pronamespace = current_schema()\\:\\:regnamespace AND p.proname LIKE '{PREFIX[:-1]}%'"
_PG_FUNCTIONS = f"SELECT p.proname, p.prosrc, p.prosecdef, p.proconfig FROM pg_proc p WHERE {_PG_OWN}"
_PG_SIGNATURES = f"SELECT p.oid\\:\\:regprocedure\\:\\:text FROM pg_proc p WHERE {_PG_OWN}"

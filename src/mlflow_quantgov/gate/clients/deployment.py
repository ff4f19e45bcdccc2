"""What a gate says of the deployment that it stands in: `quantgov doctor` asks."""

from __future__ import annotations

import stat
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from sqlalchemy import Connection, Engine, text

from mlflow_quantgov.gate.database.triggers.names import ALIASES, GRANTS
from mlflow_quantgov.gate.write_once.artifact_repo import is_guarded

_MOST_NAMES = 10


@dataclass(frozen=True)
class Reach:
    """Who else can write to the database, past the gate."""

    outcome: str
    """`pass`, `fail` or `inconclusive`."""
    words: str
    fix: str = ""


@dataclass(frozen=True)
class Deployment:
    """What stands around the gate."""

    time: str
    """The server's clock, ISO 8601 in UTC."""
    mlflow: str
    """Version of MLflow on the server."""
    database: str
    """Kind and name of the database; neither host nor password."""
    write_once: bool
    """Whether this process guards the files of registered versions."""
    login: str | None
    """How a login in front checks who asks; None where nobody does."""
    reach: Reach
    stale: str | None = None
    """Why this process decides nothing until it is started again; None where its policy and keys are in force."""

    def to_dict(self) -> dict[str, Any]:
        """As the API gives it."""
        return asdict(self)


def describe(engine: Engine, *, login: str | None = None, stale: str | None = None) -> Deployment:
    """Look around.

    Args:
        engine: The registry's database.
        login: How a login in front of this process checks who asks.
        stale: Why its policy or keys are not in force.
    """
    name = Path(engine.url.database or "").name
    return Deployment(
        time=datetime.now(UTC).isoformat(),
        mlflow=mlflow.__version__,
        database=f"{engine.dialect.name} {name}".strip(),
        write_once=is_guarded(),
        login=login,
        reach=_reach(engine),
        stale=stale,
    )


def _reach(engine: Engine) -> Reach:
    if engine.dialect.name == "sqlite":
        return _reach_of_file(Path(engine.url.database or ""))
    with engine.connect() as connection:
        return _reach_of_roles(connection)


def _reach_of_file(path: Path) -> Reach:
    """SQLite: whoever can write the file, or put another in its place, can drop the triggers."""
    if not path.is_file():
        return Reach("pass", "the database is in memory, nobody else reaches it")
    for place, what in ((path, "the file"), (path.resolve().parent, "the folder")):
        mode = place.stat().st_mode
        # In a folder with the sticky bit others may not replace what is not theirs.
        if place.is_dir() and mode & stat.S_ISVTX:
            continue
        fix = f"on the server's machine: chmod go-w {place}"
        said = f"can write {what} of {path.name}, and drop its triggers"
        if mode & stat.S_IWOTH:
            return Reach("fail", f"other users of the server's machine {said}", fix)
        if mode & stat.S_IWGRP:  # often a group of one
            return Reach("inconclusive", f"whoever is in its group on the server's machine {said}", fix)
    return Reach("pass", f"only processes of user {_owner(path)} on the server's machine can write {path.name}")


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return str(path.stat().st_uid)


def _reach_of_roles(connection: Connection) -> Reach:
    """PostgreSQL: who may drop the triggers, and who may write what they rest on."""
    found = connection.execute(text(_SELF), {"aliases": ALIASES}).one_or_none()
    if found is None:
        return Reach("inconclusive", "MLflow's tables are not there", "mlflow db upgrade URI")
    role, rules = found
    others = list(connection.execute(text(_OTHERS), {"grants": GRANTS}).scalars())
    fix = "quantgov db roles --gate mlflow_gate --others mlflow_users   (docs/how-to/set-up-the-database.md)"
    if others:
        named = ", ".join(others[:_MOST_NAMES])
        return Reach("fail", f"roles that can write what the triggers rest on, beside {role}: {named}", fix)
    if rules:
        return Reach("inconclusive", f"the gate's own role {role} may drop the triggers, and rewrite the ledger", fix)
    return Reach("pass", f"only {role} can write what the triggers rest on, and it cannot drop them")


_SELF = """
SELECT current_user, r.rolsuper OR pg_has_role(current_user, c.relowner, 'USAGE')
FROM pg_roles r, pg_class c WHERE r.rolname = current_user AND c.oid = to_regclass(:aliases)
"""
# Superusers and the owner can do anything, whatever is granted.
_OTHERS = """
SELECT r.rolname FROM pg_roles r, pg_class c
WHERE c.oid = to_regclass(:grants) AND r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> current_user
AND r.oid <> c.relowner AND has_table_privilege(r.oid, c.oid, 'INSERT') ORDER BY r.rolname
"""

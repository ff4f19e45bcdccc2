"""`quantgov db`: the gate's tables, the triggers that guard MLflow's, and who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mlflow_quantgov.cli.output import coloured, json_option, print_fix, print_json, stdout
from mlflow_quantgov.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

_uri_option = click.option(
    "--backend-store-uri",
    "uri",
    default="sqlite:///mlflow.db",
    show_default=True,
    envvar="MLFLOW_BACKEND_STORE_URI",
    help="Database of MLflow and the gate; on PostgreSQL as the role that owns the tables.",
)


@click.group()
def db() -> None:
    """The gate's tables in MLflow's database, and the triggers that guard its pointers."""


@db.command()
@_uri_option
@json_option
def upgrade(uri: str, as_json: bool) -> int:
    """Bring the gate's tables and triggers up to this version; run `mlflow db upgrade` first."""
    from mlflow_quantgov.gate.database.upgrade import upgrade as bring_up

    with _engine(uri) as engine:
        _must_have_tables(engine, ours=False)
        bring_up(engine, with_triggers=True)
        return _print(engine, as_json)


@db.command()
@_uri_option
@click.option("--remove", is_flag=True, help="Take them away: nothing but the gated server guards the pointers then.")
@click.option("--status", is_flag=True, help="Only say what is there; exit 1 where something is missing or changed.")
@json_option
def triggers(uri: str, remove: bool, status: bool, as_json: bool) -> int:
    """Make the triggers that refuse a protected alias or stage which the gate has not allowed."""
    from mlflow_quantgov.gate.database import triggers as made
    from mlflow_quantgov.gate.database.upgrade import changing

    if remove and status:
        raise UsageError("--remove changes, --status does not.", why="One of them was meant.", fix="name one")
    with _engine(uri) as engine:
        _must_have_tables(engine, ours=True)
        if not status:
            with changing(engine) as connection:
                (made.remove if remove else made.install)(connection)
        return _print(engine, as_json, removed=remove)


@db.command()
@click.option("--gate", default="mlflow_gate", show_default=True, help="Role of the gated server.")
@click.option("--others", default="mlflow_users", show_default=True, help="Role of whoever else writes.")
@click.option("--schema", default="public", show_default=True, help="Where MLflow's tables are.")
@json_option
def roles(gate: str, others: str, schema: str, as_json: bool) -> None:
    """Print the GRANT statements for PostgreSQL, for the owner of the tables to run in psql."""
    from mlflow_quantgov.gate.database.roles import grants

    statements = grants(gate, others, schema)
    if as_json:
        print_json({"statements": statements})
    else:
        print("\n".join(f"{statement};" for statement in statements))


@contextmanager
def _engine(uri: str) -> Iterator[Engine]:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, DBAPIError

    from mlflow_quantgov.cli.server_command import check_database

    check_database(uri)
    try:
        engine = create_engine(uri)
    except (ArgumentError, ImportError) as error:
        raise UsageError(
            f"The address of the database does not work: {type(error).__name__}.",
            why="Nothing was changed.",
            fix="pip install 'mlflow-quantgov[postgres]'; --backend-store-uri postgresql+psycopg://USER@HOST/NAME",
        ) from error
    try:
        yield engine
    except DBAPIError as error:
        raise UnreachableError(
            f"The database did not do what was asked: {type(error.orig).__name__}: "
            f"{str(error.orig).splitlines()[0][:200]}",
            why="Nothing was changed.",
            fix="connect as the role that owns MLflow's tables",
        ) from error
    finally:
        engine.dispose()


def _must_have_tables(engine: Engine, *, ours: bool) -> None:
    from sqlalchemy import inspect

    from mlflow_quantgov.gate.database.triggers.names import ALIASES, GRANTS

    missing = [name for name in (ALIASES, *([GRANTS] if ours else [])) if not inspect(engine).has_table(name)]
    if missing:
        raise UsageError(
            f"This database has no table {missing[0]}.",
            why="Triggers guard the tables of MLflow and rest on those of the gate.",
            fix="mlflow db upgrade URI; quantgov db upgrade --backend-store-uri URI",
        )


def _print(engine: Engine, as_json: bool, *, removed: bool = False) -> int:
    from mlflow_quantgov.gate.database import triggers as made

    with engine.connect() as connection:
        found = made.status(connection)
    described: dict[str, Any] = found.to_dict()
    if as_json:
        print_json(described)
    else:
        word = coloured("pass" if found.ok else "missing" if found.missing else "fail")
        there = f"{described['present']} of {described['expected']} triggers and functions are there"
        stdout.print(word, f" {there}, mode {found.mode or 'not told yet: every pointer is refused'}")
        if found.changed:
            stdout.print(f"changed: {', '.join(found.changed)}")
        if not found.ok and not removed:
            print_fix("quantgov db triggers")
    return 0 if found.ok or removed else 1

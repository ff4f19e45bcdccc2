"""What the database holds, read by plain SQL: none of the gate's own code looks at itself here."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

OPEN = {"@candidate", "Archived", "None"}
"""Destinations that the policies of these runs leave open."""


@dataclass
class Contents:
    """All that matters, as one transaction saw it."""

    ledger: list[dict[str, Any]]
    aliases: list[tuple[str, str, str]]
    versions: list[tuple[str, str, str]]
    statements: list[tuple[str, str | None]]
    draws: list[tuple[str, str]]
    whole: bool = True
    """Whether it is all that there is, so that the chain can be verified."""


def read(connection: Any, models: Collection[str] = ()) -> Contents:
    """Read everything in one transaction, or what is about some models."""
    cursor = connection.cursor()

    def rows(query: str, column: str = "", order: str = "") -> list[Any]:
        some = ", ".join("'{}'".format(one.replace("'", "''")) for one in models)
        where = f" WHERE {column} IN ({some})" if models and column else ""
        cursor.execute(f"{query}{where} {order}")
        return list(cursor.fetchall())

    if hasattr(connection, "info"):  # psycopg: one snapshot for all queries
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    else:
        cursor.execute("BEGIN")
    ledger = rows("SELECT * FROM quantgov_ledger", "model", "ORDER BY seq")
    names = [one[0] for one in cursor.description]
    found = Contents(
        [dict(zip(names, row, strict=True)) for row in ledger],
        [(n, f"@{a}", str(v)) for n, a, v in rows("SELECT name, alias, version FROM registered_model_aliases", "name")],
        [(n, str(v), s) for n, v, s in rows("SELECT name, version, current_stage FROM model_versions", "name")],
        rows("SELECT digest, actor FROM quantgov_statements", "model"),
        [] if models else rows("SELECT statement, actor FROM quantgov_draws"),
        whole=not models,
    )
    connection.rollback()
    return found


def problems(found: Contents) -> list[str]:
    """Everything that does not agree; empty where all does."""
    own = [*_pointers(found), *_deletions(found), *_statements(found)]
    return [*_chain(found.ledger), *own, *_draws(found)] if found.whole else own


def _chain(ledger: list[dict[str, Any]]) -> Iterable[str]:
    previous = "0" * 64
    for number, row in enumerate(ledger, 1):
        # Models of MLflow's default workspace have none in their rows, and none in their hashes.
        body = {
            name: value for name, value in row.items() if name != "row_hash" and (name, value) != ("workspace", None)
        }
        written = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if row["seq"] != number:
            yield f"row {row['seq']} of the ledger stands at place {number}"
        if row["previous_hash"] != previous or row["row_hash"] != hashlib.sha256(written.encode()).hexdigest():
            yield f"row {row['seq']} of the ledger breaks the chain"
        try:
            json.loads(row["body"])
        except ValueError:
            yield f"row {row['seq']} of the ledger holds half a body"
        previous = row["row_hash"]


def replayed(ledger: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Model, destination and version of every protected pointer, by the ledger alone."""
    aliases: dict[tuple[str, str], str] = {}
    stages: dict[tuple[str, str], str] = {}
    for row in ledger:
        model, version, destination = row["model"], row["version"], row["destination"]
        if row["kind"] in {"promotion", "inherited"}:
            if destination.startswith("@"):
                aliases[model, destination] = version
            else:
                stages[model, version] = destination
        elif row["kind"] == "alias-removed":
            aliases.pop((model, destination), None)
        elif row["kind"] == "stage-left" and stages.get((model, version)) == destination:
            stages.pop((model, version))
        elif row["kind"] == "deletion":
            gone = [key for key, at in aliases.items() if key[0] == model and version in {None, at}]
            for key in gone:
                del aliases[key]
            for key in [key for key in stages if key[0] == model and version in {None, key[1]}]:
                del stages[key]
        elif row["kind"] == "rename":
            for table in (aliases, stages):
                for key in [key for key in table if key[0] == model]:
                    table[destination, key[1]] = table.pop(key)
    found = {(model, destination, version) for (model, destination), version in aliases.items()}
    return found | {(model, stage, version) for (model, version), stage in stages.items()}


def pointers(found: Contents) -> set[tuple[str, str, str]]:
    """The same by MLflow's own tables."""
    stages = {(name, stage, version) for name, version, stage in found.versions if stage != "Deleted_Internal"}
    return {one for one in set(found.aliases) | stages if one[1] not in OPEN and one[1] is not None}


def _pointers(found: Contents) -> Iterable[str]:
    there, recorded = pointers(found), replayed(found.ledger)
    recorded = {one for one in recorded if one[1] not in OPEN}
    for one in sorted(there - recorded):
        yield "{} {} points to version {}, and the ledger does not say so".format(*one)
    for one in sorted(recorded - there):
        yield "the ledger says that {} {} points to version {}, and it does not".format(*one)
    alive = {(name, version) for name, version, stage in found.versions if stage != "Deleted_Internal"}
    for name, alias, version in found.aliases:
        if (name, version) not in alive:
            yield f"{name} {alias} points to version {version}, which is gone"


def _deletions(found: Contents) -> Iterable[str]:
    gone = {(name, version) for name, version, stage in found.versions if stage == "Deleted_Internal"}
    recorded = {(row["model"], row["version"]) for row in found.ledger if row["kind"] == "deletion" and row["version"]}
    present = {(name, version) for name, version, _ in found.versions}
    for one in sorted(gone - recorded):
        yield "{} version {} was deleted, and the ledger does not say so".format(*one)
    for one in sorted((recorded & present) - gone):
        yield "the ledger says that {} version {} was deleted, and it was not".format(*one)


def _statements(found: Contents) -> Iterable[str]:
    """What somebody attached has a row of the ledger; what was found beside the model has no actor, and none."""
    kept = {digest for digest, _ in found.statements}
    attached = {digest for digest, actor in found.statements if actor is not None}
    recorded = {json.loads(row["body"])["statement"] for row in found.ledger if row["kind"] == "statement"}
    for digest in sorted(attached - recorded):
        yield f"the statement {digest[:19]} was kept, and the ledger does not say so"
    for digest in sorted(recorded - kept):
        yield f"the ledger says that the statement {digest[:19]} came, and it was not kept"


def _draws(found: Contents) -> Iterable[str]:
    kept = Counter((statement, actor) for statement, actor in found.draws)
    bodies = [json.loads(row["body"]) for row in found.ledger if row["kind"] == "draw"]
    recorded = Counter((body["statement"], body["drawn_for"]) for body in bodies)
    if kept != recorded:
        yield f"drawn {sum(kept.values())} times, and the ledger says {sum(recorded.values())}"

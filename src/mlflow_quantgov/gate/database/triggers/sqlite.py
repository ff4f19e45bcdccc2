"""The triggers for SQLite: one statement each, with everything spelled out, since SQLite has no functions of its own making.

They refer only to NEW, OLD, their own table and our tables: one that named another table of MLflow would break
`mlflow db upgrade` (docs/adr/0017). `INSERT OR REPLACE` removes rows without firing a DELETE trigger, by key and by rowid,
so both are looked at before an insert.
"""

from __future__ import annotations

from mlflow_quantgov.gate.database.triggers.names import (
    ALIASES,
    CHAIN_REFUSED,
    DEFAULT_WORKSPACE,
    GONE,
    GRANT_REFUSED,
    GRANTS,
    KEPT,
    KEPT_REFUSED,
    LEDGER,
    POINTER_REFUSED,
    VERSIONS,
)
from mlflow_quantgov.gate.ledger.chain import GENESIS

_ENFORCED = "NOT EXISTS (SELECT 1 FROM quantgov_guard WHERE mode = 'observe')"


def definitions() -> dict[str, str]:
    """Name to statement of every trigger."""
    return dict((*_aliases(), *_versions(), *_grants(), *_kept(), *_ledger()))


def _trigger(name: str, when: str, table: str, condition: str, words: str) -> tuple[str, str]:
    statement = (
        f"CREATE TRIGGER {name} BEFORE {when} ON {table} FOR EACH ROW WHEN {condition} "
        f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
    )
    return name, statement


def _decidable(value: str) -> str:
    """Printable ASCII without NUL, where SQLite's functions stop reading."""
    return (
        f"(typeof({value}) = 'text' AND length(CAST({value} AS BLOB)) = length({value}) "
        f"AND {value} NOT GLOB '*[^ -~]*')"
    )


def _rule(name: str) -> str:
    """The rules' rows `r` of the first rule that matches a name."""
    first = f"SELECT MIN(m.position) FROM quantgov_rules m WHERE trim(lower({name})) GLOB m.glob"
    return f"SELECT 1 FROM quantgov_rules r WHERE r.position = ({first})"


def _observed(name: str) -> str:
    """Whether the first rule that matches only observes."""
    return f"({_decidable(name)} AND EXISTS ({_rule(name)} AND r.observes))"


def _open(name: str, destination: str) -> str:
    """Whether the first rule that matches leaves a destination open, or only observes."""
    wanted = f"trim(lower({destination}))"
    return (
        f"({_observed(name)} OR {_decidable(name)} AND {_decidable(destination)} AND EXISTS ({_rule(name)} "
        f"AND r.is_open AND (r.destination = {wanted} OR r.destination IS NULL AND NOT EXISTS (SELECT 1 "
        f"FROM quantgov_rules s WHERE s.position = r.position AND s.destination = {wanted}))))"
    )


def _granted(row: str, destination: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM quantgov_grants g WHERE g.workspace = {row}.workspace AND g.name = {row}.name "
        f"AND g.destination IN ({destination}, '*') AND g.version IN ({row}.version, -1))"
    )


def _live(row: str) -> str:
    """Whether the ledger says that a version was let through and is still the one that was; where a rule observes, it may go."""
    model = f"model = {row}.name AND COALESCE({{0}}.workspace, '{DEFAULT_WORKSPACE}') = {row}.workspace"
    return (
        f"NOT {_observed(f'{row}.name')} AND EXISTS (SELECT 1 FROM quantgov_ledger p WHERE p.{model.format('p')} "
        f"AND p.version = CAST({row}.version AS TEXT) AND p.kind IN ('promotion', 'inherited') "
        f"AND NOT EXISTS (SELECT 1 FROM quantgov_ledger e WHERE e.{model.format('e')} AND e.seq > p.seq "
        f"AND e.kind IN ('deletion', 'rename') AND (e.version IS NULL OR e.version = p.version)))"
    )


def _aliases() -> list[tuple[str, str]]:
    new, old = _open("NEW.name", "'@' || NEW.alias"), _open("OLD.name", "'@' || OLD.alias")
    granted, granted_old = _granted("NEW", "'@' || NEW.alias"), _granted("OLD", "'@' || OLD.alias")
    replaced = f"EXISTS (SELECT 1 FROM {ALIASES} a WHERE a.rowid = NEW.rowid)"
    same = "NEW.{0} IS OLD.{0}"
    unchanged = " AND ".join(same.format(one) for one in ("workspace", "name", "alias", "version", "rowid"))
    return [
        _trigger("quantgov_alias_set", "INSERT", ALIASES,
                 f"{_ENFORCED} AND NOT {granted} AND (NOT {new} OR {replaced})", POINTER_REFUSED),
        _trigger("quantgov_alias_moved", "UPDATE", ALIASES,
                 f"NOT ({unchanged}) AND {_ENFORCED} AND NOT {granted} "
                 f"AND (NOT {new} OR NOT {old} OR NEW.rowid IS NOT OLD.rowid)", POINTER_REFUSED),
        _trigger("quantgov_alias_removed", "DELETE", ALIASES,
                 f"{_ENFORCED} AND NOT {old} AND NOT {granted_old}", POINTER_REFUSED),
    ]  # fmt: skip


def _versions() -> list[tuple[str, str]]:
    stage = "COALESCE({0}.current_stage, 'None')"
    new_stage, old_stage = stage.format("NEW"), stage.format("OLD")
    new, old = _open("NEW.name", new_stage), _open("OLD.name", old_stage)
    held = f"{old_stage} NOT IN ('None', 'Archived', '{GONE}')"
    granted = _granted("NEW", f"lower({new_stage})")
    moved = f"{new_stage} IS NOT {old_stage}"
    renamed = "(NEW.name IS NOT OLD.name OR NEW.workspace IS NOT OLD.workspace)"
    rekeyed = f"({renamed} OR NEW.version IS NOT OLD.version)"
    pointed = " OR ".join(f"NEW.{one} IS NOT OLD.{one}" for one in ("creation_time", "source", "storage_location"))
    replaced = f"EXISTS (SELECT 1 FROM {VERSIONS} v WHERE v.rowid = NEW.rowid)"
    changed = " OR ".join(
        [
            f"{moved} AND {new_stage} IS NOT '{GONE}' AND NOT {new}",
            f"{moved} AND {held} AND NOT {old}",
            f"{renamed} AND {new_stage} IS NOT 'None' AND (NOT {old} OR NOT {new})",
            f"({rekeyed} OR {pointed} OR {moved} AND {new_stage} IS '{GONE}') AND {_live('OLD')}",
            f"{rekeyed} AND {_live('NEW')}",
            "NEW.rowid IS NOT OLD.rowid",
        ]
    )
    return [
        _trigger("quantgov_version_made", "INSERT", VERSIONS,
                 f"{_ENFORCED} AND NOT {granted} AND ({new_stage} IS NOT 'None' AND NOT {new} OR {_live('NEW')} "
                 f"OR {replaced})", POINTER_REFUSED),
        _trigger("quantgov_version_moved", "UPDATE", VERSIONS,
                 f"({moved} OR {rekeyed} OR {pointed} OR NEW.rowid IS NOT OLD.rowid) AND {_ENFORCED} "
                 f"AND NOT {granted} AND ({changed})", POINTER_REFUSED),
        _trigger("quantgov_version_removed", "DELETE", VERSIONS,
                 f"{_ENFORCED} AND NOT {_granted('OLD', f'lower({old_stage})')} "
                 f"AND ({held} AND NOT {old} OR {_live('OLD')})", POINTER_REFUSED),
    ]  # fmt: skip


def _grants() -> list[tuple[str, str]]:
    allowed = (
        f"EXISTS (SELECT 1 FROM quantgov_ledger l WHERE l.seq = NEW.seq "
        f"AND l.seq = (SELECT MAX(seq) FROM quantgov_ledger) "
        f"AND COALESCE(l.workspace, '{DEFAULT_WORKSPACE}') = NEW.workspace AND ("
        "l.kind = 'promotion' AND l.decision IN ('allowed', 'observed') AND l.model = NEW.name "
        "AND l.version = CAST(NEW.version AS TEXT) AND NEW.destination IN (l.destination, lower(l.destination)) "
        "OR l.kind = 'open' AND l.model = NEW.name "
        "AND l.version = CAST(NEW.version AS TEXT) AND NEW.destination IN (l.destination, lower(l.destination)) "
        "OR l.kind IN ('stage-left', 'deletion') AND l.model = NEW.name "
        "AND (l.version IS NULL OR l.version = CAST(NEW.version AS TEXT)) "
        "OR l.kind = 'alias-removed' AND l.model = NEW.name AND l.destination = NEW.destination "
        "OR l.kind = 'rename' AND NEW.name IN (l.model, l.destination)))"
    )
    return [
        _trigger("quantgov_grant_made", "INSERT", GRANTS, f"NOT {allowed}", GRANT_REFUSED),
        _trigger("quantgov_grant_changed", "UPDATE", GRANTS, "1", GRANT_REFUSED),
    ]


def _kept() -> list[tuple[str, str]]:
    made = []
    for table, keys in KEPT.items():
        same = " AND ".join(f"t.{key} = NEW.{key}" for key in keys)
        there = f"EXISTS (SELECT 1 FROM {table} t WHERE {same} OR t.rowid = NEW.rowid)"
        made += [
            _trigger(f"{table}_replaced", "INSERT", table, there, KEPT_REFUSED),
            _trigger(f"{table}_changed", "UPDATE", table, "1", KEPT_REFUSED),
            _trigger(f"{table}_removed", "DELETE", table, "1", KEPT_REFUSED),
        ]
    return made


def _ledger() -> list[tuple[str, str]]:
    last = f"(SELECT row_hash FROM {LEDGER} ORDER BY seq DESC LIMIT 1)"
    condition = (
        f"NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM {LEDGER}) "
        f"OR NEW.previous_hash IS NOT COALESCE({last}, '{GENESIS}') "
        f"OR EXISTS (SELECT 1 FROM {LEDGER} t WHERE t.decision_id = NEW.decision_id)"
    )
    return [_trigger("quantgov_ledger_chained", "INSERT", LEDGER, condition, CHAIN_REFUSED)]

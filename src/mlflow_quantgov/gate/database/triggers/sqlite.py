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
    GUARD,
    KEPT,
    KEPT_REFUSED,
    LEDGER,
    POINTER_REFUSED,
    RULES,
    RULES_REFUSED,
    VERSIONS,
)
from mlflow_quantgov.gate.ledger.chain import GENESIS

_NOWHERE = "''"
_ENFORCED = "NOT EXISTS (SELECT 1 FROM quantgov_guard WHERE mode = 'observe')"


def definitions() -> dict[str, str]:
    """Name to statement of every trigger."""
    return dict((*_aliases(), *_versions(), *_grants(), *_told(), *_kept(), *_ledger()))


def _trigger(name: str, when: str, table: str, condition: str, words: str) -> tuple[str, str]:
    statement = (
        f"CREATE TRIGGER {name} BEFORE {when} ON {table} FOR EACH ROW WHEN {condition} "
        f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
    )
    return name, statement


def _decidable(value: str) -> str:
    """Printable ASCII with single spaces only, and without NUL, where SQLite's functions stop reading."""
    return (
        f"(typeof({value}) = 'text' AND length(CAST({value} AS BLOB)) = length({value}) "
        f"AND {value} NOT GLOB '*[^ -~]*' AND {value} NOT GLOB '*  *')"
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


def _granted(deed: str, row: str, destination: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM quantgov_grants g WHERE g.deed = '{deed}' AND g.workspace = {row}.workspace "
        f"AND g.name = {row}.name AND g.destination IN ({destination}, '*') AND g.version IN ({row}.version, -1))"
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
    is_set = _granted("set", "NEW", "'@' || NEW.alias")
    removed = _granted("removal", "OLD", "'@' || OLD.alias")
    replaced = f"EXISTS (SELECT 1 FROM {ALIASES} a WHERE a.rowid = NEW.rowid)"
    return [
        _trigger("quantgov_alias_set", "INSERT", ALIASES,
                 f"{_ENFORCED} AND NOT {is_set} AND (NOT {new} OR {replaced})", POINTER_REFUSED),
        _trigger("quantgov_alias_moved", "UPDATE", ALIASES,
                 f"NOT ({_same('workspace', 'name', 'alias', 'version', 'rowid')}) AND {_ENFORCED} "
                 f"AND (NOT {new} OR NOT {old} OR NEW.rowid IS NOT OLD.rowid) "
                 f"AND NOT ({_same('workspace', 'name', 'alias', 'rowid')} AND {is_set}) "
                 f"AND NOT ({_same('workspace', 'alias', 'version', 'rowid')} AND {_RENAMED})", POINTER_REFUSED),
        _trigger("quantgov_alias_removed", "DELETE", ALIASES,
                 f"{_ENFORCED} AND NOT {old} AND NOT {removed}", POINTER_REFUSED),
    ]  # fmt: skip


def _same(*columns: str) -> str:
    return " AND ".join(f"NEW.{one} IS OLD.{one}" for one in columns)


_RENAMED = f"{_granted('rename', 'OLD', _NOWHERE)} AND {_granted('rename', 'NEW', _NOWHERE)}"


def _versions() -> list[tuple[str, str]]:
    stage = "COALESCE({0}.current_stage, 'None')"
    new_stage, old_stage = stage.format("NEW"), stage.format("OLD")
    new, old = _open("NEW.name", new_stage), _open("OLD.name", old_stage)
    held = f"{old_stage} NOT IN ('None', 'Archived', '{GONE}')"
    is_set, removed = _granted("set", "NEW", f"lower({new_stage})"), _granted("removal", "OLD", f"lower({old_stage})")
    moved, goes = f"{new_stage} IS NOT {old_stage}", f"({new_stage} IS '{GONE}' AND {new_stage} IS NOT {old_stage})"
    renamed = f"NOT ({_same('name', 'workspace')})"
    numbered = f"NOT ({_same('version')})"
    pointed = f"NOT ({_same('creation_time', 'source', 'storage_location')})"
    replaced = f"EXISTS (SELECT 1 FROM {VERSIONS} v WHERE v.rowid = NEW.rowid)"
    refused = " OR ".join(
        [
            # What another takes the stage of is archived by MLflow, whatever the policy says of that stage.
            f"{moved} AND NOT {goes} AND NOT {new} AND NOT {is_set} AND NOT ({new_stage} IS 'Archived' AND {removed})",
            f"{moved} AND {held} AND NOT {old} AND NOT {removed}",
            f"{renamed} AND ({new_stage} IS NOT 'None' AND (NOT {old} OR NOT {new}) OR {_live('OLD')} OR {_live('NEW')}) "
            f"AND NOT ({_same('workspace')} AND {_RENAMED})",
            f"{numbered} AND ({_live('OLD')} OR {_live('NEW')})",
            f"({goes} OR {pointed}) AND {_live('OLD')} AND NOT ({goes} AND {removed})",
            "NEW.rowid IS NOT OLD.rowid",
        ]
    )
    return [
        _trigger("quantgov_version_made", "INSERT", VERSIONS,
                 f"{_ENFORCED} AND ({new_stage} IS NOT 'None' AND NOT {new} AND NOT {is_set} OR {_live('NEW')} "
                 f"OR {replaced})", POINTER_REFUSED),
        _trigger("quantgov_version_moved", "UPDATE", VERSIONS,
                 f"({moved} OR {renamed} OR {numbered} OR {pointed} OR NEW.rowid IS NOT OLD.rowid) AND {_ENFORCED} "
                 f"AND ({refused})", POINTER_REFUSED),
        _trigger("quantgov_version_removed", "DELETE", VERSIONS,
                 f"{_ENFORCED} AND NOT {removed} AND ({held} AND NOT {old} OR {_live('OLD')})", POINTER_REFUSED),
    ]  # fmt: skip


def _grants() -> list[tuple[str, str]]:
    named = "NEW.destination IN (l.destination, lower(l.destination))"
    numbered = "l.version = CAST(NEW.version AS TEXT)"
    allowed = (
        f"EXISTS (SELECT 1 FROM quantgov_ledger l WHERE l.seq = NEW.seq "
        f"AND l.seq = (SELECT MAX(seq) FROM quantgov_ledger) "
        f"AND COALESCE(l.workspace, '{DEFAULT_WORKSPACE}') = NEW.workspace AND CASE NEW.deed "
        "WHEN 'set' THEN l.model = NEW.name "
        "AND (l.kind = 'open' OR l.kind = 'promotion' AND l.decision IN ('allowed', 'observed')) "
        f"AND {numbered} AND {named} "
        "WHEN 'removal' THEN l.model = NEW.name "
        f"AND (l.kind = 'stage-left' AND {numbered} AND {named} OR l.kind = 'alias-removed' AND {named} "
        f"OR l.kind = 'deletion' AND (l.version IS NULL OR {numbered})) "
        "WHEN 'rename' THEN l.kind = 'rename' AND NEW.name IN (l.model, l.destination) ELSE 0 END)"
    )
    return [
        _trigger("quantgov_grant_made", "INSERT", GRANTS, f"NOT {allowed}", GRANT_REFUSED),
        _trigger("quantgov_grant_changed", "UPDATE", GRANTS, "1", GRANT_REFUSED),
    ]


def _told() -> list[tuple[str, str]]:
    """What the triggers enforce changes only by the newest row, if that is one of the policy and was not used for it yet."""
    newest = f"SELECT 1 FROM {LEDGER} l WHERE l.kind = 'policy' AND l.seq = (SELECT MAX(seq) FROM {LEDGER})"
    fresh = f"EXISTS ({newest} AND NOT EXISTS (SELECT 1 FROM quantgov_guard g WHERE g.seq >= l.seq))"
    names_it = (
        f"{fresh} AND NEW.id = 1 AND EXISTS ({newest} AND l.seq = NEW.seq AND l.policy_digest = NEW.policy_digest)"
    )
    return [
        _trigger("quantgov_rule_made", "INSERT", RULES, f"NOT {fresh}", RULES_REFUSED),
        _trigger("quantgov_rule_changed", "UPDATE", RULES, "1", RULES_REFUSED),
        _trigger("quantgov_rule_removed", "DELETE", RULES, f"NOT {fresh}", RULES_REFUSED),
        _trigger("quantgov_guard_made", "INSERT", GUARD,
                 f"NOT ({names_it}) OR EXISTS (SELECT 1 FROM {GUARD})", RULES_REFUSED),
        _trigger("quantgov_guard_changed", "UPDATE", GUARD, f"NOT ({names_it})", RULES_REFUSED),
        _trigger("quantgov_guard_removed", "DELETE", GUARD, "1", RULES_REFUSED),
    ]  # fmt: skip


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

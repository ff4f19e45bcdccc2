"""The triggers for PostgreSQL: functions that run with the rights of their owner, so that nobody else has to see our tables.

They refer only to NEW, OLD and our tables (docs/adr/0017). A grant counts only in the transaction that wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Function:
    """A function that a trigger calls, or that such a function asks."""

    arguments: str
    """Types, as PostgreSQL lists them."""
    declared: str
    """Names and types."""
    returns: str
    language: str
    body: str


@dataclass(frozen=True)
class Trigger:
    """A trigger, as `pg_get_triggerdef` spells it."""

    table: str
    events: str
    each: str
    function: str


def functions() -> dict[str, Function]:
    """Every function by name."""
    return {
        "quantgov_is_observed": Function("text", "wanted_name text", "boolean", "sql", _RULE_OBSERVES),
        "quantgov_is_open": Function("text, text", "wanted_name text, wanted text", "boolean", "sql", _OPEN),
        "quantgov_is_granted": Function(
            "text, text, text, text, integer",
            "wanted_deed text, wanted_workspace text, wanted_name text, wanted text, wanted_version integer",
            "boolean",
            "sql",
            _GRANTED,
        ),
        "quantgov_is_live": Function(
            "text, text, integer",
            "wanted_workspace text, wanted_name text, wanted_version integer",
            "boolean",
            "sql",
            _LIVE,
        ),
        "quantgov_guard_alias": Function("", "", "trigger", "plpgsql", _ALIAS),
        "quantgov_guard_version": Function("", "", "trigger", "plpgsql", _VERSION),
        "quantgov_guard_grant": Function("", "", "trigger", "plpgsql", _GRANT),
        "quantgov_guard_rules": Function("", "", "trigger", "plpgsql", _TOLD),
        "quantgov_guard_ledger": Function("", "", "trigger", "plpgsql", _LEDGER),
        "quantgov_refuse_kept": Function("", "", "trigger", "plpgsql", f"BEGIN {_raise(KEPT_REFUSED)} END"),
        "quantgov_refuse_pointer": Function("", "", "trigger", "plpgsql", _EMPTIED),
    }


def triggers() -> dict[str, Trigger]:
    """Every trigger by name."""
    found = {
        "quantgov_alias": Trigger(ALIASES, "INSERT OR DELETE OR UPDATE", "ROW", "quantgov_guard_alias"),
        "quantgov_alias_emptied": Trigger(ALIASES, "TRUNCATE", "STATEMENT", "quantgov_refuse_pointer"),
        "quantgov_version": Trigger(VERSIONS, "INSERT OR DELETE OR UPDATE", "ROW", "quantgov_guard_version"),
        "quantgov_version_emptied": Trigger(VERSIONS, "TRUNCATE", "STATEMENT", "quantgov_refuse_pointer"),
        "quantgov_grant": Trigger(GRANTS, "INSERT OR UPDATE", "ROW", "quantgov_guard_grant"),
        "quantgov_rule": Trigger(RULES, "INSERT OR DELETE OR UPDATE", "ROW", "quantgov_guard_rules"),
        "quantgov_rule_emptied": Trigger(RULES, "TRUNCATE", "STATEMENT", "quantgov_refuse_kept"),
        "quantgov_told": Trigger(GUARD, "INSERT OR DELETE OR UPDATE", "ROW", "quantgov_guard_rules"),
        "quantgov_told_emptied": Trigger(GUARD, "TRUNCATE", "STATEMENT", "quantgov_refuse_kept"),
        "quantgov_ledger_chained": Trigger(LEDGER, "INSERT", "ROW", "quantgov_guard_ledger"),
    }
    for table in KEPT:
        found[f"{table}_changed"] = Trigger(table, "DELETE OR UPDATE", "ROW", "quantgov_refuse_kept")
        found[f"{table}_emptied"] = Trigger(table, "TRUNCATE", "STATEMENT", "quantgov_refuse_kept")
    return found


def _raise(words: str) -> str:
    return f"RAISE EXCEPTION '{words}' USING ERRCODE = 'insufficient_privilege';"


# No name is folded beyond printable ASCII with single spaces: what PostgreSQL makes of others depends on its locale.
_RULE_OBSERVES = """
SELECT wanted_name COLLATE "C" ~ '^( ?[!-~])* ?$' AND EXISTS (
  SELECT 1 FROM quantgov_rules r
  WHERE r.position = (
      SELECT MIN(m.position) FROM quantgov_rules m WHERE btrim(lower(wanted_name COLLATE "C")) ~ m.regex)
    AND r.observes)
"""
_OPEN = """
SELECT quantgov_is_observed(wanted_name) OR wanted_name COLLATE "C" ~ '^( ?[!-~])* ?$' AND wanted COLLATE "C" ~ '^( ?[!-~])* ?$' AND EXISTS (
  SELECT 1 FROM quantgov_rules r
  WHERE r.position = (
      SELECT MIN(m.position) FROM quantgov_rules m WHERE btrim(lower(wanted_name COLLATE "C")) ~ m.regex)
    AND r.is_open
    AND (r.destination = btrim(lower(wanted COLLATE "C")) OR r.destination IS NULL AND NOT EXISTS (
      SELECT 1 FROM quantgov_rules s
      WHERE s.position = r.position AND s.destination = btrim(lower(wanted COLLATE "C")))))
"""
_GRANTED = """
SELECT EXISTS (
  SELECT 1 FROM quantgov_grants g
  WHERE g.txid = txid_current() AND g.deed = wanted_deed AND g.workspace = wanted_workspace AND g.name = wanted_name
    AND g.destination IN (wanted, '*') AND g.version IN (wanted_version, -1))
"""
_LIVE = f"""
SELECT NOT quantgov_is_observed(wanted_name) AND EXISTS (
  SELECT 1 FROM quantgov_ledger p
  WHERE p.model = wanted_name AND COALESCE(p.workspace, '{DEFAULT_WORKSPACE}') = wanted_workspace
    AND p.version = wanted_version::text AND p.kind IN ('promotion', 'inherited') AND NOT EXISTS (
      SELECT 1 FROM quantgov_ledger e
      WHERE e.model = wanted_name AND COALESCE(e.workspace, '{DEFAULT_WORKSPACE}') = wanted_workspace
        AND e.seq > p.seq AND e.kind IN ('deletion', 'rename') AND (e.version IS NULL OR e.version = p.version)))
"""
# Locked: a transaction that began before another policy came into force sees the old one, and is told that it is too late.
_HEARD = "SELECT g.mode INTO heard FROM quantgov_guard g WHERE g.id = 1 FOR SHARE;"
_OBSERVED = "heard = 'observe'"
_RENAMED = (
    "(quantgov_is_granted('rename', OLD.workspace, OLD.name, '', OLD.version) "
    "AND quantgov_is_granted('rename', NEW.workspace, NEW.name, '', NEW.version))"
)
_ALIAS = f"""
DECLARE
  heard text;
BEGIN
  {_HEARD}
  IF {_OBSERVED} THEN
    RETURN COALESCE(NEW, OLD);
  END IF;
  IF TG_OP = 'DELETE' THEN
    IF NOT quantgov_is_open(OLD.name, '@' || OLD.alias)
       AND NOT quantgov_is_granted('removal', OLD.workspace, OLD.name, '@' || OLD.alias, OLD.version) THEN
      {_raise(POINTER_REFUSED)}
    END IF;
    RETURN OLD;
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF (NEW.workspace, NEW.name, NEW.alias, NEW.version)
       IS NOT DISTINCT FROM (OLD.workspace, OLD.name, OLD.alias, OLD.version) THEN
      RETURN NEW;
    END IF;
    IF quantgov_is_open(NEW.name, '@' || NEW.alias) AND quantgov_is_open(OLD.name, '@' || OLD.alias) THEN
      RETURN NEW;
    END IF;
    IF (NEW.workspace, NEW.alias, NEW.version) = (OLD.workspace, OLD.alias, OLD.version) AND {_RENAMED} THEN
      RETURN NEW;
    END IF;
    IF (NEW.workspace, NEW.name, NEW.alias) <> (OLD.workspace, OLD.name, OLD.alias) THEN
      {_raise(POINTER_REFUSED)}
    END IF;
  ELSIF quantgov_is_open(NEW.name, '@' || NEW.alias) THEN
    RETURN NEW;
  END IF;
  IF NOT quantgov_is_granted('set', NEW.workspace, NEW.name, '@' || NEW.alias, NEW.version) THEN
    {_raise(POINTER_REFUSED)}
  END IF;
  RETURN NEW;
END
"""
_VERSION = f"""
DECLARE
  new_stage text;
  old_stage text;
  held boolean;
  removed boolean;
  renamed boolean;
  numbered boolean;
  repointed boolean;
  moved boolean;
  goes boolean;
  heard text;
BEGIN
  {_HEARD}
  IF {_OBSERVED} THEN
    RETURN COALESCE(NEW, OLD);
  END IF;
  IF TG_OP <> 'INSERT' THEN
    old_stage := COALESCE(OLD.current_stage, 'None');
    held := old_stage NOT IN ('None', 'Archived', '{GONE}');
    removed := quantgov_is_granted('removal', OLD.workspace, OLD.name, lower(old_stage), OLD.version);
  END IF;
  IF TG_OP = 'DELETE' THEN
    IF (held AND NOT quantgov_is_open(OLD.name, old_stage) OR quantgov_is_live(OLD.workspace, OLD.name, OLD.version))
       AND NOT removed THEN
      {_raise(POINTER_REFUSED)}
    END IF;
    RETURN OLD;
  END IF;
  new_stage := COALESCE(NEW.current_stage, 'None');
  IF TG_OP = 'INSERT' THEN
    IF new_stage <> 'None' AND NOT quantgov_is_open(NEW.name, new_stage)
        AND NOT quantgov_is_granted('set', NEW.workspace, NEW.name, lower(new_stage), NEW.version)
      OR quantgov_is_live(NEW.workspace, NEW.name, NEW.version) THEN
      {_raise(POINTER_REFUSED)}
    END IF;
    RETURN NEW;
  END IF;
  renamed := (NEW.workspace, NEW.name) IS DISTINCT FROM (OLD.workspace, OLD.name);
  numbered := NEW.version <> OLD.version;
  repointed := (NEW.creation_time, NEW.source, NEW.storage_location)
    IS DISTINCT FROM (OLD.creation_time, OLD.source, OLD.storage_location);
  moved := new_stage <> old_stage;
  goes := moved AND new_stage = '{GONE}';
  IF NOT (renamed OR numbered OR repointed OR moved) THEN
    RETURN NEW;
  END IF;
  -- What another takes the stage of is archived by MLflow, whatever the policy says of that stage.
  IF moved AND NOT goes AND NOT quantgov_is_open(NEW.name, new_stage)
      AND NOT quantgov_is_granted('set', NEW.workspace, NEW.name, lower(new_stage), NEW.version)
      AND NOT (new_stage = 'Archived' AND removed)
    OR moved AND held AND NOT quantgov_is_open(OLD.name, old_stage) AND NOT removed
    OR renamed
      AND (new_stage <> 'None' AND NOT (quantgov_is_open(OLD.name, old_stage) AND quantgov_is_open(NEW.name, new_stage))
        OR quantgov_is_live(OLD.workspace, OLD.name, OLD.version)
        OR quantgov_is_live(NEW.workspace, NEW.name, NEW.version))
      AND NOT (NEW.workspace = OLD.workspace AND {_RENAMED})
    OR numbered AND (quantgov_is_live(OLD.workspace, OLD.name, OLD.version)
      OR quantgov_is_live(NEW.workspace, NEW.name, NEW.version))
    OR (goes OR repointed) AND quantgov_is_live(OLD.workspace, OLD.name, OLD.version) AND NOT (goes AND removed) THEN
    {_raise(POINTER_REFUSED)}
  END IF;
  RETURN NEW;
END
"""
# A row of the ledger counts in the transaction that wrote it: `xmin` is the lower half of that transaction's number.
_OWN_NEWEST = (
    "l.seq = (SELECT MAX(seq) FROM quantgov_ledger) AND l.xmin::text::bigint = mod(txid_current(), 4294967296)"
)
_NAMED, _NUMBERED = "NEW.destination IN (l.destination, lower(l.destination))", "l.version = NEW.version::text"
_GRANT = f"""
BEGIN
  IF TG_OP = 'UPDATE' OR NOT EXISTS (
    SELECT 1 FROM quantgov_ledger l
    WHERE l.seq = NEW.seq AND {_OWN_NEWEST}
      AND COALESCE(l.workspace, '{DEFAULT_WORKSPACE}') = NEW.workspace AND CASE NEW.deed
        WHEN 'set' THEN l.model = NEW.name AND {_NUMBERED} AND {_NAMED}
          AND (l.kind = 'open' OR l.kind = 'promotion' AND l.decision IN ('allowed', 'observed'))
        WHEN 'removal' THEN l.model = NEW.name
          AND (l.kind = 'stage-left' AND {_NUMBERED} AND {_NAMED} OR l.kind = 'alias-removed' AND {_NAMED}
            OR l.kind = 'deletion' AND (l.version IS NULL OR {_NUMBERED}))
        WHEN 'rename' THEN l.kind = 'rename' AND NEW.name IN (l.model, l.destination)
        ELSE false END) THEN
    {_raise(GRANT_REFUSED)}
  END IF;
  NEW.txid := txid_current();
  RETURN NEW;
END
"""
# What the triggers enforce changes only by the newest row, if that is one of the policy and was not used for it yet.
_TOLD = f"""
DECLARE
  fresh integer;
  named text;
BEGIN
  SELECT l.seq, l.policy_digest INTO fresh, named FROM quantgov_ledger l
  WHERE l.kind = 'policy' AND {_OWN_NEWEST} AND NOT EXISTS (SELECT 1 FROM quantgov_guard g WHERE g.seq >= l.seq);
  IF fresh IS NULL THEN
    {_raise(RULES_REFUSED)}
  END IF;
  IF TG_TABLE_NAME = '{RULES}' THEN
    IF TG_OP = 'UPDATE' THEN
      {_raise(RULES_REFUSED)}
    END IF;
  ELSIF TG_OP = 'DELETE' OR TG_OP = 'INSERT' AND EXISTS (SELECT 1 FROM quantgov_guard)
      OR NEW.id <> 1 OR NEW.seq <> fresh OR NEW.policy_digest <> named THEN
    {_raise(RULES_REFUSED)}
  END IF;
  RETURN COALESCE(NEW, OLD);
END
"""
_LEDGER = f"""
BEGIN
  IF NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM quantgov_ledger)
     OR NEW.previous_hash <> COALESCE((SELECT row_hash FROM quantgov_ledger ORDER BY seq DESC LIMIT 1), '{GENESIS}')
  THEN
    {_raise(CHAIN_REFUSED)}
  END IF;
  RETURN NEW;
END
"""
_EMPTIED = f"""
DECLARE
  heard text;
BEGIN
  {_HEARD}
  IF {_OBSERVED} IS NOT TRUE THEN
    {_raise(POINTER_REFUSED)}
  END IF;
  RETURN NULL;
END
"""

"""A policy's globs in the forms that databases match, for names of printable ASCII; other names no database can fold.

Exact for those names: a test compares Python, SQLite and PostgreSQL.
"""

from __future__ import annotations

import fnmatch
import re

from mlflow_quantgov.policy.matching import refuses_nothing, rule_observes
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import Policy, Rule

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
# Possessive, as fnmatch reads: what follows `[` or `[!` is in the set even if it is `]`, and a set without end is a bracket.
_TOKEN = re.compile(r"\*+|\?|\[!?+\]?+[^\]]*+\]|.", re.DOTALL)


def is_decidable(text: str) -> bool:
    """Whether a database folds a name as we do: small letters, no outer spaces; it makes one space of two nowhere."""
    return "  " not in text and all(letter in PRINTABLE for letter in text)


def sql_patterns(glob: str) -> tuple[str, str] | None:
    """A folded glob for SQLite's GLOB and for PostgreSQL's `~`; None where no name of printable ASCII fits it."""
    for_sqlite, for_postgresql = "", ""
    for token in _TOKEN.findall(glob):
        if token[0] == "*":
            for_sqlite, for_postgresql = f"{for_sqlite}*", f"{for_postgresql}.*"
            continue
        letters = "".join(letter for letter in PRINTABLE if fnmatch.fnmatchcase(letter, token))
        if not letters:
            return None
        if letters == PRINTABLE:
            for_sqlite, for_postgresql = f"{for_sqlite}?", f"{for_postgresql}."
            continue
        for_sqlite += _sqlite_set(letters)
        for_postgresql += _postgresql_set(letters)
    return for_sqlite, f"^{for_postgresql}$"


def mode(policy: Policy) -> str:
    """`observe` where nothing is refused for any model; else `enforce`, and each rule says whether it only observes."""
    return "observe" if refuses_nothing(policy) else "enforce"


def rule_rows(policy: Policy) -> list[dict[str, object]]:
    """Rows of `quantgov_rules`: every rule's destinations, and one more for those that it does not name."""
    rows: list[dict[str, object]] = []
    # Models that no rule matches are refused, or observed, as the policy says.
    last = Rule(models="*", destinations={})
    for position, rule in enumerate((*policy.rules, last)):
        patterns = sql_patterns(fold(rule.models))
        if patterns is None:
            continue
        named: dict[str | None, bool] = {}
        for destination, gate in rule.destinations.items():
            named.setdefault(fold(destination), gate == "open")
        named[None] = rule.other_destinations == "open"
        for folded, is_open in named.items():
            if folded is None or (is_decidable(folded) and len(folded) <= 300):
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "position": position,
                        "glob": patterns[0],
                        "regex": patterns[1],
                        "destination": folded,
                        "is_open": is_open,
                        "observes": rule_observes(policy, rule),
                    }
                )
    return rows


def _sqlite_set(letters: str) -> str:
    """`]` stands first, `^` not first, `-` last: there they mean themselves. One letter alone needs brackets only if special."""
    if len(letters) == 1:
        return f"[{letters}]" if letters in "*?[" else letters
    ordered = [letter for letter in "]" if letter in letters]
    ordered += [letter for letter in letters if letter not in "]^-"]
    ordered += [letter for letter in "^-" if letter in letters]
    if ordered[0] == "^":  # `^` and `-` alone
        ordered = ["-", "^"]
    return f"[{''.join(ordered)}]"


def _postgresql_set(letters: str) -> str:
    """Every letter that could be special is escaped, in a class as outside."""
    escaped = "".join(letter if letter.isalnum() else f"\\{letter}" for letter in letters)
    return escaped if len(letters) == 1 else f"[{escaped}]"

"""Which policy and keys a process decides by: the files that it names, or what is in force already.

A server decides by its files, and by the shipped policy where it names none. Somebody who only opens the registry beside it
(a script, a look at the ledger) and names none means no change: what the newest rows of the ledger say holds on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from mlflow_quantgov.errors import PolicyError
from mlflow_quantgov.evidence.signing import NO_KEYS, TrustedKeys, load_trusted_keys, parse_trusted_keys
from mlflow_quantgov.gate import ledger
from mlflow_quantgov.gate.database.tables import KeysRow, PolicyRow
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.schema import Policy

File = TypeVar("File", Policy, TrustedKeys)
POLICY, KEYS = "QUANTGOV_POLICY", "QUANTGOV_KEYS"
_SERVER = "_MLFLOW_SERVER_REGISTRY_STORE"
"""What MLflow sets for the processes of a server."""
START, SEEN = "QUANTGOV_SERVER_START", "QUANTGOV_SERVER_SAW"
"""Which start of `quantgov server` a process belongs to, and the newest row of the ledger then."""


def named_policy() -> Policy | None:
    """The policy that this process names; None where what is in force holds on.

    Raises:
        PolicyError: The file does not exist, or is no policy.
    """
    return load_policy(os.environ.get(POLICY)) if _decides(POLICY) else None


def named_keys() -> TrustedKeys | None:
    """The keys that this process names; None where those in force hold on.

    Raises:
        PolicyError: The file does not exist, or holds no keys.
    """
    return load_trusted_keys(os.environ.get(KEYS)) if _decides(KEYS) else None


def kept_policy(session: Session) -> Policy:
    """The policy in force; the shipped one where nobody has opened this registry yet.

    Raises:
        PolicyError: It was not kept, or is another one by now.
    """
    return _kept(session, "policy", PolicyRow, parse_policy, POLICY) or load_policy()


def kept_keys(session: Session) -> TrustedKeys:
    """The keys in force.

    Raises:
        PolicyError: They were not kept, or are others by now.
    """
    return _kept(session, "keys", KeysRow, parse_trusted_keys, KEYS) or NO_KEYS


def seen_at_start(newest: int) -> int:
    """The newest row of the ledger when this process's server started; what came later it may not replace by its own files.

    A worker that dies is started again by its server, and then nobody has meant to put its files in force. The first process
    of a server, which opens the registry before there are workers, hands the number down to them.

    Args:
        newest: The newest row now.
    """
    start = os.environ.get(START)
    if start is None:
        return newest
    of, _, seen = os.environ.get(SEEN, "").rpartition(":")
    if of != start:
        os.environ[SEEN] = f"{start}:{newest}"
        return newest
    return int(seen)


def _decides(variable: str) -> bool:
    return variable in os.environ or _SERVER in os.environ


def _kept(
    session: Session, kind: str, table: type[PolicyRow | KeysRow], parse: Callable[..., File], variable: str
) -> File | None:
    """What the newest row of the ledger names, from its kept text; None where there is none."""
    digest = ledger.newest_digest(session, kind)
    if not digest:
        return None
    row: Any = session.get(table, digest)
    found = parse(row.text, source=f"the {kind} in force") if row is not None else None
    if found is None or found.digest != digest:
        raise PolicyError(
            f"The {kind} file in force, {digest[:19]}, is not in the database as it was read.",
            why="Nothing can be decided, or told, without it.",
            fix=f"export {variable}=FILE, the one that the server reads",
        )
    return found

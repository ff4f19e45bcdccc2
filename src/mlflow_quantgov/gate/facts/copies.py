"""Copies of statements beside a model: for people everywhere, and where nothing is gated all the evidence that there is."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from mlflow_quantgov.errors import short
from mlflow_quantgov.evidence.signing import (
    MAX_ENVELOPE_BYTES,
    Attached,
    Signature,
    TrustedKeys,
    examine,
    refuse_bad,
)
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER
from mlflow_quantgov.policy.facts import Evidence

MOST_COPIES = 1000
"""Files that are read; more are looked at by nobody."""
MOST_BYTES = 2 * MAX_ENVELOPE_BYTES
"""Of all copies beside one model."""
MOST_PROBLEMS = 20


def copies_below(root: Path) -> tuple[tuple[tuple[str, bytes], ...], tuple[str, ...]]:
    """Name and bytes of the copies beside a model, and why those that are not read are not.

    Whoever logs a model writes this folder, so nothing in it is followed, waited for, or read beyond its bounds.
    """
    folder = root / EVIDENCE_FOLDER
    if folder.is_symlink() or folder.parent.is_symlink():
        return (), (f"{EVIDENCE_FOLDER} is a link, which nobody follows.",)
    if not folder.is_dir():
        return (), ()
    with os.scandir(folder) as entries:
        all_names = [entry.name for entry in islice(entries, MOST_COPIES + 1)]
    if len(all_names) > MOST_COPIES:
        return (), (f"{EVIDENCE_FOLDER} holds more than {MOST_COPIES:,} files.",)
    found: list[tuple[str, bytes]] = []
    problems: list[str] = []
    left = MOST_BYTES
    for name in sorted(one for one in all_names if one.endswith(".json")):
        data, problem = _read(folder / name, left)
        if data is None:
            problems.append(f"The copy {EVIDENCE_FOLDER}/{short(name, 80, quoted=False)} was not read: {problem}.")
        else:
            found.append((name, data))
            left -= len(data)
    return tuple(found), tuple(problems[:MOST_PROBLEMS])


def _read(path: Path, left: int) -> tuple[bytes | None, str]:
    """Bytes of an ordinary file, or None and why it is not read."""
    try:
        # Neither a link is followed, nor a pipe waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return None, "it is a link" if error.errno == errno.ELOOP else str(error.strerror)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        return None, "it is no ordinary file"
    with os.fdopen(handle, "rb") as file:
        if status.st_size > MAX_ENVELOPE_BYTES:
            return None, f"it has {status.st_size:,} bytes, and no statement has more than {MAX_ENVELOPE_BYTES:,}"
        if status.st_size > left:
            return None, f"the copies together have more than {MOST_BYTES:,} bytes"
        return file.read(status.st_size), ""


def unkept(attached: Attached, keys: TrustedKeys, now: datetime, where: str) -> Evidence:
    """A copy as evidence, where nothing is kept: whoever signed it is known, when it was received is not.

    Raises:
        EvidenceError: The signature names a trusted key that did not make it, or the statement is malformed.
    """
    statement = attached.statement
    signed: tuple[Signature, ...] = ()
    if attached.envelope is not None:
        found = examine(attached.envelope, keys, now, now)
        refuse_bad(found, keys, where)
        signed = (replace(found, received_at=None),)
    return Evidence(statement, statement.content(), statement.digest, None, None, signed)


def merged(found: Iterable[Evidence]) -> list[Evidence]:
    """Each statement once, with the signatures of all its copies."""
    once: dict[str, Evidence] = {}
    for one in found:
        before = once.setdefault(one.digest, one)
        if before is not one:
            once[one.digest] = replace(before, signatures=before.signatures + one.signatures)
    return list(once.values())

"""The ledger as a file of JSON lines, for auditors who have no server."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError, no_such_file, short
from mlflow_quantgov.gate.ledger.chain import WHOLE, Verification, walk

_MAX_LINE = 64 * 1024 * 1024


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Verification:
    """Write rows whole or not at all, and recompute their chain on the way.

    Returns:
        What the chain of the written rows shows.
    """
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:

            def written() -> Iterator[Mapping[str, Any]]:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
                    yield row

            found = walk(written())
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return found


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of an exported file, one at a time.

    Raises:
        UsageError: A line is no row of a ledger.
    """
    if not path.is_file():
        raise no_such_file(path, "Nothing was verified.")
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            try:
                row = json.loads(line, parse_constant=_no_constant)
            except (ValueError, RecursionError) as error:
                raise _no_row(path, number, "it is not JSON") from error
            missing = sorted(set(WHOLE) - row.keys()) if isinstance(row, dict) else ["an object"]
            if missing:
                raise _no_row(path, number, f"it lacks {short(missing[0], quoted=False)}")
            if type(row["seq"]) is not int:
                raise _no_row(path, number, "its number is none")
            yield row


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _no_row(path: Path, number: int, problem: str) -> UsageError:
    return UsageError(
        f"Line {number} of {path.name} is no row of a ledger: {problem}.",
        why="Nothing after it was verified.",
        fix=f"quantgov audit export {path.name}",
    )

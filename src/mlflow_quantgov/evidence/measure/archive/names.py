"""How the files of an archive are named, by digests."""

from __future__ import annotations

import re

from mlflow_quantgov.errors import UsageError, short

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def chunk_name(sha256: str) -> str:
    """One coded piece."""
    return f"chunks/{sha256[:2]}/{sha256}"


def file_name(sha256: str) -> str:
    """Of which pieces a file is made."""
    return f"files/{sha256[:2]}/{sha256}.json"


def blob_name(sha256: str) -> str:
    """A whole file, as earlier archives had it."""
    return f"blobs/{sha256[:2]}/{sha256}"


def manifest_name(digest: str) -> str:
    """Which files a model has."""
    return f"manifests/{_hex(digest)}.json"


def answers_name(digest: str) -> str:
    """What it answered in drills."""
    return f"answers/{_hex(digest)}.json"


def _hex(digest: str) -> str:
    """A manifest digest as part of a name: it comes from a model's own files, and may be anything.

    Raises:
        UsageError: It is no digest.
    """
    if not _DIGEST.fullmatch(digest):
        raise UsageError(
            f"{short(digest)} is no digest of a manifest.",
            why="The archive finds a model by that.",
            fix="quantgov archive models:/NAME/VERSION",
        )
    return digest.removeprefix("sha256:")

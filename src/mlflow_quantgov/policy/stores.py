"""Where a version's files may lie: below one of the addresses that a rule names.

Who may write elsewhere can change files after the gate has read them, past every server.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from mlflow_quantgov.errors import short

_ADDRESS = re.compile(r"(?:(?P<scheme>[a-z][a-z0-9+.-]+):)?(?://(?P<host>[^/?#%\\\s]*))?(?P<path>(?:/[^?#\\]*)?)")
_NAMES_OF_MODELS = {"models", "runs"}
_FOLDER = "file"
_HOSTED = {"s3", "gs", "r2", "wasbs", "abfss", "ftp", "sftp", "http", "https"}
"""Schemes of MLflow's artifact stores whose addresses begin with whose they are."""
ENCODED = frozenset({_FOLDER, "mlflow-artifacts"})
"""Schemes whose paths MLflow percent-encodes by itself, and decodes once everywhere."""


def objection(stores: tuple[str, ...], address: str | None) -> str | None:
    """Why files may not lie where they do, or None.

    Args:
        stores: What the rule names; empty: anywhere.
        address: Where they lie; None where nobody knows.
    """
    if not stores:
        return None
    allowed = f"the policy lets versions through only from {', '.join(stores)}"
    if address is None:
        return f"Nobody knows where its files lie, and {allowed}."
    if any(_is_below(address, store) for store in stores):
        return None
    return f"Its files lie at {short(address, 200, quoted=False)}, and {allowed}."


def fault(store: str) -> str | None:
    """Why a rule cannot name a store like this, or None."""
    parts = _parted(store)
    if parts is None or not store.isprintable():
        return "is no address: write a scheme and what follows (s3://bucket/models, mlflow-artifacts:/) or an absolute path"
    if parts[0] in _NAMES_OF_MODELS:
        return "names models, not where files lie"
    if parts[0] in _HOSTED and not parts[1]:
        return "names no bucket or host, so that no file would lie in it"
    if parts[0] == _FOLDER and parts[1]:
        return "names a host, which no path of this machine has"
    if any(name in {".", ".."} for name in parts[2]):
        return "leads elsewhere by its dots"
    return None


def _is_below(address: str, store: str) -> bool:
    """Whether an address is the store's or lies in it: by whole names between slashes."""
    this, there = _parted(address), _parted(store)
    if this is None or there is None or this[:2] != there[:2] or ".." in this[2]:
        return False
    return this[2][: len(there[2])] == there[2]


def _parted(address: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Scheme, host and the names of the path; None where it is no absolute address."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not address.startswith(("/", f"{found['scheme']}:/")):
        return None
    scheme = found["scheme"] or _FOLDER
    path = unquote(found["path"]) if found["scheme"] in ENCODED else found["path"]
    return scheme, found["host"] or "", tuple(name for name in path.split("/") if name)

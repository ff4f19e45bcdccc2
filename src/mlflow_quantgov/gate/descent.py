"""Comparisons of weights that were made already: they depend on nothing but the bytes of both models."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from mlflow_quantgov.artifact.derivation import Descent, compare
from mlflow_quantgov.errors import ArtifactError

_KEPT = 64
_made: OrderedDict[tuple[str, str], Descent] = OrderedDict()
_lock = Lock()


def descent_of(child_digest: str, child: Path, parent_digest: str, parent: Path) -> Descent:
    """Compare two models, or remember how it went.

    Args:
        child_digest: Manifest digest of the quantized model, just computed.
        child: Its files.
        parent_digest: Manifest digest of the parent, just computed.
        parent: Its files.

    Returns:
        The comparison; `unproved` with the reason where a file cannot be read to its end.
    """
    key = child_digest, parent_digest
    with _lock:
        if key in _made:
            _made.move_to_end(key)
            return _made[key]
    try:
        found = compare(child, parent)
    except ArtifactError as error:
        return Descent("unproved", f"The weights could not be compared: {error.what}", (), "as stored", None)
    with _lock:
        _made[key] = found
        while len(_made) > _KEPT:
            _made.popitem(last=False)
    return found

"""Comparisons of weights that were made already: they depend on nothing but the bytes of both models."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeVar

from mlflow_quantgov.artifact.derivation import Descent, Kinship, compare, kinship
from mlflow_quantgov.errors import ArtifactError

_KEPT = 64
_made: OrderedDict[tuple[type, str, str], Descent | Kinship] = OrderedDict()
_lock = Lock()
Found = TypeVar("Found", Descent, Kinship)
Comparison = Callable[[str, Path, str, Path], Found]
"""Compares two models by digest and place of each."""


def descent_of(child_digest: str, child: Path, parent_digest: str, parent: Path) -> Descent:
    """Compare a quantized model with its parent, or remember how it went.

    Args:
        child_digest: Manifest digest of the quantized model, just computed.
        child: Its files.
        parent_digest: Manifest digest of the parent, just computed.
        parent: Its files.

    Returns:
        The comparison; `unproved` with the reason where a file cannot be read to its end.
    """
    try:
        return _remembered(Descent, child_digest, parent_digest, lambda: compare(child, parent))
    except ArtifactError as error:
        return Descent("unproved", f"The weights could not be compared: {error.what}", (), "as stored", None)


def kinship_of(model_digest: str, model: Path, original_digest: str, original: Path) -> Kinship:
    """Compare a model with a full-precision one, or remember how it went; the arguments are those of `descent_of`."""
    try:
        return _remembered(Kinship, model_digest, original_digest, lambda: kinship(model, original))
    except ArtifactError as error:
        return Kinship((), 1.0, f"The weights could not be compared: {error.what}")


def _remembered(kind: type[Found], one: str, other: str, make: Callable[[], Found]) -> Found:
    key = kind, one, other
    with _lock:
        known = _made.get(key)
        if isinstance(known, kind):
            _made.move_to_end(key)
            return known
    found = make()
    with _lock:
        _made[key] = found
        while len(_made) > _KEPT:
            _made.popitem(last=False)
    return found

"""Which folders of artifacts hold registered versions: asked of the registry's database at every write."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from sqlalchemy import Connection, Engine, Row, inspect, text

from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.gate.facts.sources import databases, logged_model_of, resolved, run_of
from mlflow_quantgov.gate.write_once.places import LOCAL, Place, place_of

MOST_SECONDS = 30.0
"""After this long everything is read again, whatever the summary says."""
# Any change of a version changes one of these: rows are added, or deleted and given a new time.
_SUMMARY = text(
    "SELECT COUNT(*), MAX(creation_time), MAX(last_updated_time), SUM(creation_time % 1000003), "
    "SUM(CASE WHEN current_stage = :deleted THEN 1 ELSE 0 END) FROM model_versions"
).bindparams(deleted=STAGE_DELETED_INTERNAL)
_LOCATIONS = text(
    "SELECT DISTINCT source, storage_location FROM model_versions WHERE current_stage IS NULL OR current_stage <> :deleted"
).bindparams(deleted=STAGE_DELETED_INTERNAL)


@dataclass(frozen=True)
class Within:
    """A place that lies in the folder of a registered version, or is it."""

    root: Place
    inner: tuple[str, ...]
    """Path inside that folder; empty for the folder itself."""


@dataclass(frozen=True)
class Folders:
    """The folders of all registered versions, of whatever name and workspace, at one moment."""

    roots: dict[Place, list[Place]]
    """By their folded form."""
    above: frozenset[Place]
    """Folded forms of every folder that holds one of them."""

    def within(self, place: Place) -> list[Within]:
        """Every registered version's folder in which a place lies; one may lie inside another."""
        return [
            Within(root, place.parts[len(root.parts) :])
            for above in place.upwards()
            for root in self.roots.get(above.folded, ())
            if _same(root, above)
        ]

    def holds(self, place: Place) -> bool:
        """Whether a registered version's folder lies below a place."""
        return place.folded in self.above


@dataclass(frozen=True)
class _Root:
    """A version's folder, with what is derived from its path once."""

    place: Place
    folded: Place
    above: tuple[Place, ...]


class Governed:
    """Knows which folders belong to registered versions, by asking the registry's database each time."""

    def __init__(self, engine: Engine) -> None:
        """Remember the registry's database."""
        self._engine = engine
        self._lock = threading.Lock()
        self._summary: Row[tuple[object, ...]] | None = None
        self._read_at = float("-inf")
        self._folders = Folders({}, frozenset())
        self._known: dict[tuple[str | None, str | None], _Root] = {}

    def now(self) -> Folders:
        """The folders of all versions that are registered now."""
        with self._lock, self._engine.connect() as connection:
            summary = connection.execute(_SUMMARY).one()
            if summary != self._summary or time.monotonic() - self._read_at > MOST_SECONDS:
                self._folders = self._read(connection)
                self._summary, self._read_at = summary, time.monotonic()
            return self._folders

    def _read(self, connection: Connection) -> Folders:
        found = {}
        for row in connection.execute(_LOCATIONS):
            key = (row[0], row[1])
            root = self._known.get(key) or self._root(*key)
            if root is not None:
                found[key] = root
        self._known = found
        by_name: dict[Place, list[Place]] = defaultdict(list)
        for one in set(found.values()):
            by_name[one.folded].append(one.place)
        return Folders(dict(by_name), frozenset(above for one in found.values() for above in one.above))

    def _root(self, source: str | None, location: str | None) -> _Root | None:
        place = self._place(source, location)
        if place is None:
            return None
        folded = place.folded
        return _Root(place, folded, tuple(one for one in folded.upwards() if one != folded))

    def _place(self, source: str | None, location: str | None) -> Place | None:
        """Where a version's files lie; None where its source leads nowhere any more."""
        uri = location or source or ""
        if uri.startswith(("runs:", "models:")):
            uri = resolved(self._engine, uri) or uri
        if not uri or uri.startswith(("runs:", "models:")):
            return None
        try:
            return place_of(uri)
        except (ArtifactError, ValueError):
            return None  # nothing can be read from there, and nothing be written to it


def covers_others(engine: Engine, uri: str) -> str | None:
    """The folder of other people's artifacts that a source would take in whole, or None.

    Whoever registered such a version would have everybody else's uploads refused.

    Args:
        engine: The registry's database.
        uri: Where the files of the version that is to be registered lie.
    """
    try:
        place = place_of(uri)
    except (ArtifactError, ValueError):
        return None
    if _is_of_one(engine, place):
        return None
    for other in _shared(engine):
        try:
            if any(above.folded == place.folded for above in place_of(other).upwards()):
                return other
        except (ArtifactError, ValueError):
            continue
    return None


def _is_of_one(engine: Engine, place: Place) -> bool:
    """Whether a place lies in the artifacts of one run or one logged model, by the ids in its path."""
    for name in place.parts:
        for one in databases(engine):
            owner = logged_model_of(one, f"models:/{name}") or run_of(one, f"runs:/{name}/")
            if owner is not None and any(above == place_of(owner) for above in place.upwards()):
                return True
    return False


def _shared(engine: Engine) -> Iterator[str]:
    """The destination of this server, and the folder of every experiment."""
    yield "mlflow-artifacts:/"
    for one in databases(engine):
        if inspect(one).has_table("experiments"):
            with one.connect() as connection:
                rows = connection.execute(text("SELECT artifact_location FROM experiments")).all()
            yield from (str(row[0]) for row in rows if row[0])


def _same(root: Place, other: Place) -> bool:
    """Whether two places with one folded form are one: on this machine the file system is asked."""
    if root == other or root.store != LOCAL:
        return root == other
    try:
        return root.path.samefile(other.path)
    except OSError:
        return False

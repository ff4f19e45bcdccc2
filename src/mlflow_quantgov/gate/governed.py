"""Which folders of artifacts hold registered versions: asked of the registry's database at every write."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from sqlalchemy import Connection, Engine, Row, inspect, text

from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.gate.places import LOCAL, Place, place_of
from mlflow_quantgov.gate.sources import databases, logged_model_of, run_of

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


@dataclass
class _Known:
    """The folders of all registered versions, at one moment."""

    summary: Row[tuple[object, ...]] | None = None
    read_at: float = float("-inf")
    roots: dict[Place, list[Place]] = field(default_factory=dict)
    """By their folded form."""
    above: set[Place] = field(default_factory=set)
    """Folded forms of every folder that holds one of them."""


class Governed:
    """Answers whether a place belongs to a registered version, of whatever name and workspace."""

    def __init__(self, engine: Engine) -> None:
        """Remember the registry's database."""
        self._engine = engine
        self._lock = threading.Lock()
        self._known = _Known()
        self._places: dict[tuple[str | None, str | None], Place | None] = {}

    def within(self, place: Place) -> list[Within]:
        """Every registered version's folder in which a place lies; one may lie inside another."""
        known = self._current()
        return [
            Within(root, place.parts[len(root.parts) :])
            for above in place.upwards()
            for root in known.roots.get(above.folded, ())
            if _same(root, above)
        ]

    def holds(self, place: Place) -> bool:
        """Whether a registered version's folder lies below a place."""
        return place.folded in self._current().above

    def _current(self) -> _Known:
        with self._lock, self._engine.connect() as connection:
            summary = connection.execute(_SUMMARY).one()
            now = time.monotonic()
            if summary != self._known.summary or now - self._known.read_at > MOST_SECONDS:
                roots = self._roots(connection)
                above = {one.folded for root in roots for one in root.upwards() if one != root}
                by_name: dict[Place, list[Place]] = defaultdict(list)
                for root in roots:
                    by_name[root.folded].append(root)
                self._known = _Known(summary, now, dict(by_name), above)
            return self._known

    def _roots(self, connection: Connection) -> set[Place]:
        found = {}
        for row in connection.execute(_LOCATIONS):
            key = (row[0], row[1])
            place = self._places.get(key)
            found[key] = place if place is not None else self._place(*key)
        self._places = found
        return {place for place in found.values() if place is not None}

    def _place(self, source: str | None, location: str | None) -> Place | None:
        """Where a version's files lie; None where its source leads nowhere any more."""
        uri = location or source or ""
        for engine in databases(self._engine) if uri.startswith(("runs:", "models:")) else ():
            resolved = logged_model_of(engine, uri) or run_of(engine, uri)
            if resolved is not None:
                uri = resolved
                break
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

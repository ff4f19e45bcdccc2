"""Where the bytes of a registered version lie, as seen from the gate."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy import Engine, create_engine, inspect, text

from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.gate.facts.addresses import LOGGED, VERSION, check_address
from mlflow_quantgov.gate.write_once.places import DESTINATION

_RUN = re.compile(r"^runs:/+(?P<id>[0-9a-f]{32})(?:/(?P<path>.*))?$", re.DOTALL)
# MLflow's own server hands these to its workers (mlflow/server/__init__.py).
_BACKEND = "_MLFLOW_SERVER_FILE_STORE"
_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"


@dataclass(frozen=True)
class VersionRef:
    """One registered version, as it was when a decision was asked for."""

    name: str
    version: str
    source: str
    creation_time: int
    """Milliseconds; version numbers are reused after a deletion, this is not."""
    location: str | None = None
    """Where clients download its files from, fixed when it was created; None for a version that is not stored yet."""


def version_named(uri: str | None) -> tuple[str, str] | None:
    """Name and version of a `models:/NAME/VERSION`; None for any other URI."""
    named = VERSION.match(uri or "")
    return (named["name"], named["version"]) if named else None


@contextmanager
def local_files(ref: VersionRef, engine: Engine | None) -> Iterator[Path]:
    """The version's files on this machine, as a client gets them; in a temporary folder where they lie elsewhere.

    Args:
        ref: The version.
        engine: The registry's database; None on a client, which asks its tracking server.

    Raises:
        ArtifactError: The files cannot be reached, or their address may be read in two ways.
    """
    location = location_of(ref, engine)
    path = _as_path(location)
    if path is not None:
        if not path.exists():
            why = " (was this server started with another --artifacts-destination?)" if _is_served(location) else ""
            raise _unreachable(ref, f"{path.name} is not there{why}")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="quantgov-files-") as scratch:
        try:
            # The way of clients. `mlflow.artifacts.download_artifacts` splits an address first, and joins it otherwise.
            fetched = Path(get_artifact_repository(stored_at(location)).download_artifacts("", scratch))
        except Exception as error:
            raise _unreachable(ref, type(error).__name__) from error
        if not any(fetched.iterdir()):
            raise _unreachable(ref, "nothing lies below its address; of a file, register the folder")
        yield fetched


def path_here(ref: VersionRef, engine: Engine | None) -> Path | None:
    """Where the version's files lie on this machine; None where they would have to be downloaded.

    Raises:
        ArtifactError: Nobody knows where they lie, or their address may be read in two ways.
    """
    return _as_path(location_of(ref, engine))


def location_of(ref: VersionRef, engine: Engine | None) -> str:
    """The address of a version's files.

    Raises:
        ArtifactError: Nobody knows it, or it may be read in two ways.
    """
    found = _found(ref, engine)
    check_address(found, f"{ref.name} version {ref.version}")
    return found


def _found(ref: VersionRef, engine: Engine | None) -> str:
    known = ref.location or ref.source
    logged = LOGGED.match(known or "")
    if not logged:
        return known
    if engine is None:
        return str(mlflow.MlflowClient().get_logged_model(logged[1]).artifact_location)
    found = resolved(engine, known)
    if found is not None:
        return found
    raise _unreachable(ref, f"the logged model {logged[1]} is gone")


def resolved(engine: Engine, uri: str) -> str | None:
    """Where the files of a logged model or of a run lie; None for other URIs, and where nobody here knows it."""
    known = (logged_model_of(one, uri) or run_of(one, uri) for one in databases(engine))
    return next((found for found in known if found is not None), None)


def logged_model_of(engine: Engine, uri: str) -> str | None:
    """Where the files of `models:/m-...` lie; None for other URIs, and where this database does not know it; one that was deleted still has its row."""
    logged = LOGGED.match(uri)
    return _one(engine, "logged_models", "artifact_location", "model_id", logged[1]) if logged else None


def run_of(engine: Engine, uri: str) -> str | None:
    """Where `runs:/ID/PATH` lies; None for other URIs, and where this database does not know the run."""
    named = _RUN.match(uri)
    root = _one(engine, "runs", "artifact_uri", "run_uuid", named["id"]) if named else None
    if named is None or root is None:
        return None
    return f"{root}/{named['path']}" if named["path"] else root


def _one(engine: Engine, table: str, column: str, key: str, value: str) -> str | None:
    """One column of one row of MLflow's own tables."""
    if not inspect(engine).has_table(table):
        return None
    with engine.connect() as connection:
        query = text(f"SELECT {column} FROM {table} WHERE {key} = :value")  # noqa: S608  (names from above, not from outside)
        row = connection.execute(query, {"value": value}).first()
    return None if row is None or row[0] is None else str(row[0])


def databases(engine: Engine) -> Iterator[Engine]:
    """The registry's database, then the tracking server's where it is another one."""
    yield engine
    backend = os.environ.get(_BACKEND, "")
    if "://" in backend and not backend.startswith(("http", "file")):
        other = create_engine(backend)
        try:
            yield other
        finally:
            other.dispose()


def stored_at(location: str) -> str:
    """Where the server itself fetches what it serves: a client asks for `mlflow-artifacts:` over HTTP, the server cannot."""
    parsed, destination = urlparse(location), os.environ.get(DESTINATION)
    relative = unquote(parsed.path).strip("/")
    if not destination or not _is_served(location) or ".." in relative.split("/"):
        return location
    return f"{destination.rstrip('/')}/{relative}"


def _as_path(location: str) -> Path | None:
    stored = stored_at(location)
    parsed = urlparse(stored)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(stored) if parsed.scheme == "" else None


def _is_served(location: str) -> bool:
    """Whether clients get it from this server: another host, if one is named, has files of its own."""
    parsed = urlparse(location)
    own = {"", urlparse(os.environ.get(_ROOT, "")).netloc}
    return parsed.scheme == "mlflow-artifacts" and parsed.netloc in own


def _unreachable(ref: VersionRef, problem: str) -> ArtifactError:
    return ArtifactError(
        f"The files of {ref.name} version {ref.version} cannot be reached: {problem}.",
        why="What cannot be read cannot be judged.",
        fix="quantgov doctor",
    )

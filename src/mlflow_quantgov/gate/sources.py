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
from sqlalchemy import Engine, create_engine, inspect, text

from mlflow_quantgov.errors import ArtifactError

_VERSION = re.compile(r"^models:/(?P<name>[^/@]+)/(?P<version>\d+)$")
_LOGGED = re.compile(r"^models:/(m-[0-9a-f]{32})$")
# MLflow's own server hands these to its workers (mlflow/server/__init__.py).
_BACKEND = "_MLFLOW_SERVER_FILE_STORE"
_DESTINATION = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"


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
    named = _VERSION.match(uri or "")
    return (named["name"], named["version"]) if named else None


@contextmanager
def local_files(ref: VersionRef, engine: Engine | None) -> Iterator[Path]:
    """The version's files on this machine, downloaded into a temporary folder where they lie elsewhere.

    Args:
        ref: The version.
        engine: The registry's database; None on a client, which asks its tracking server.

    Raises:
        ArtifactError: The files cannot be reached.
    """
    location = _location(ref, engine)
    path = _as_path(location)
    if path is not None:
        if not path.exists():
            raise _unreachable(ref, f"{path.name} is not there")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="quantgov-files-") as scratch:
        try:
            fetched = mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=scratch)
        except Exception as error:
            raise _unreachable(ref, type(error).__name__) from error
        yield Path(fetched)


def path_here(ref: VersionRef, engine: Engine | None) -> Path | None:
    """Where the version's files lie on this machine; None where they would have to be downloaded.

    Raises:
        ArtifactError: Nobody knows where they lie.
    """
    return _as_path(_location(ref, engine))


def _location(ref: VersionRef, engine: Engine | None) -> str:
    if ref.location is not None:
        return ref.location
    logged = _LOGGED.match(ref.source or "")
    if not logged:
        return ref.source
    if engine is None:
        return str(mlflow.MlflowClient().get_logged_model(logged[1]).artifact_location)
    for candidate in _databases(engine):
        if not inspect(candidate).has_table("logged_models"):
            continue
        with candidate.connect() as connection:
            query = text("SELECT artifact_location FROM logged_models WHERE model_id = :id")
            row = connection.execute(query, {"id": logged[1]}).first()
        if row is not None:
            return str(row[0])
    raise _unreachable(ref, f"the logged model {logged[1]} is gone")


def _databases(engine: Engine) -> Iterator[Engine]:
    """The registry's database, then the tracking server's where it is another one."""
    yield engine
    backend = os.environ.get(_BACKEND, "")
    if "://" in backend and not backend.startswith(("http", "file")):
        other = create_engine(backend)
        try:
            yield other
        finally:
            other.dispose()


def _as_path(location: str) -> Path | None:
    parsed = urlparse(location)
    if parsed.scheme == "mlflow-artifacts" and os.environ.get(_DESTINATION):
        root = _as_path(os.environ[_DESTINATION])
        relative = unquote(parsed.path).lstrip("/")
        if root is None or ".." in Path(relative).parts:
            return None
        return root / relative
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    if parsed.scheme == "":
        return Path(location)
    return None


def _unreachable(ref: VersionRef, problem: str) -> ArtifactError:
    return ArtifactError(
        f"The files of {ref.name} version {ref.version} cannot be reached: {problem}.",
        why="What cannot be read cannot be judged.",
        fix="quantgov doctor",
    )
